"""Masks by hand, their algebra, and what they say of themselves."""

import pytest
import torch

from core.masks import (
    And,
    Blocks,
    Causal,
    Dense,
    Documents,
    Everything,
    Grid,
    Lengths,
    Not,
    Padding,
    Prefix,
    Window,
    bigbird,
)

B, H, N = 2, 3, 7


def table(mask, queries=N):
    return mask.dense(B, H, queries, N).expand(B, H, queries, N)


def rows(mask, queries=N, b=0):
    """The mask of one batch entry as text: one line for each query, x where it sees."""
    return ["".join("x" if seen else "." for seen in row) for row in table(mask, queries)[b, 0].tolist()]


def test_by_hand():
    assert rows(Causal())[2] == "xxx...."
    assert rows(Causal(), queries=2) == ["xxxxxx.", "xxxxxxx"]  # the last query stands beside the last key
    assert rows(Window(2, 1))[3] == ".xxxx.."
    assert rows(Window(2), queries=1) == ["....xxx"]
    assert rows(Lengths(torch.tensor([7, 3])), b=1)[6] == "xxx...."
    assert rows(Documents(torch.tensor([[0, 0, 1, 1, 1, 2, 2]] * 2)))[3] == "..xxx.."
    assert rows(Causal() | Prefix(4))[1] == "xxxx..."
    assert rows(Causal() & Window(1, 5))[3] == "..xx..."
    assert rows(~Window(1, 1))[3] == "xx...xx"
    assert rows(Blocks(3, torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)))[4] == "...xxxx"


def test_a_grid_is_near_in_both_directions():
    mask = Grid(3, 5, 1).dense(1, 1, 15, 15)[0, 0].view(3, 5, 3, 5)
    seen = mask[1, 2]  # from the middle
    assert seen.sum() == 9
    assert seen[0:3, 1:4].all()
    assert mask[0, 0].sum() == 4
    assert not mask[0, 4, 1, 0]  # the next row's first place is not a neighbour of this row's last


def test_sizes_stay_small():
    assert Padding(torch.ones(B, N, dtype=torch.bool)).dense(B, H, N, N).shape == (B, 1, 1, N)
    assert Causal().dense(B, H, N, N).shape == (1, 1, N, N)


def test_bigbird_sees_the_ends_its_neighbours_and_a_few_others():
    mask = bigbird(8 * 16, 16, everywhere=1, window=1, random=2)
    assert mask.table[0].all()
    assert mask.table[:, 0].all()
    for n in range(8):
        assert mask.table[n, max(0, n - 1) : n + 2].all()
    assert (mask.table[3:6].sum(1) == 1 + 3 + 2).all()
    assert torch.equal(mask.table, bigbird(8 * 16, 16, everywhere=1, window=1, random=2).table)
    assert not torch.equal(mask.table, bigbird(8 * 16, 16, everywhere=1, window=1, random=2, seed=1).table)


def test_algebra():
    a, b = Causal(), Window(1, 3)
    assert torch.equal(table(~(a | b)), table(~a & ~b))
    assert isinstance(~~a, Causal)
    assert (a & Everything()) is a
    assert isinstance(a | Everything(), Everything)
    assert isinstance(~a, Not)


def test_simplify_changes_nothing_that_a_real_query_sees():
    lengths = Lengths(torch.tensor([7, 4]))
    assert isinstance((Causal() & lengths).simplify(), Causal)
    assert isinstance((lengths & Causal()).simplify(), Causal)
    short = (Window(2, 3) & Causal()).simplify()
    assert isinstance(short, Window)
    assert torch.equal(table(short), table(Window(2, 3) & Causal()))
    both = Causal() & lengths
    for n, length in enumerate((7, 4)):
        assert torch.equal(table(both.simplify())[n, :, :length], table(both)[n, :, :length])
    assert isinstance((Causal() & Padding(torch.ones(B, N, dtype=torch.bool))).simplify(), And)


@pytest.mark.parametrize(
    "mask", [Causal(), Window(2, 1), Grid(1, N, 2), Window(1, 4) & Causal(), Window(1) | Window(0, 2), Prefix(2)]
)
def test_reach_is_what_is_seen(mask):
    i, j = torch.arange(N)[:, None], torch.arange(N)
    left, right = mask.reach()
    assert not table(mask)[0, 0][(j < i - left) | (j > i + right)].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lengths(torch.ones(2)), "whole numbers"),
        (lambda: Documents(torch.ones(2, 3)), "needs ids"),
        (lambda: Prefix(-1), "length >= 0"),
        (lambda: Grid(0, 3, 1), "height, width >= 1"),
        (lambda: Blocks(3, torch.ones(2, 2)), "table"),
        (lambda: Dense(torch.ones(2, 2, dtype=torch.bool)), "needs"),
        (lambda: table(Grid(2, 3, 1)), r"made for \(6,\) and met attention over \(7,\)"),
        (lambda: table(Blocks(2, torch.ones(2, 2, dtype=torch.bool))), "made for"),
        (lambda: table(Causal() & Lengths(torch.tensor([1, 2, 3]))), "made for"),
    ],
)
def test_bad_masks(make, message):
    with pytest.raises(ValueError, match=message):
        make()
