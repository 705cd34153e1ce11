"""Masks by hand, their algebra, and what they say of themselves."""

import pytest
import torch

from core.masks import (
    Blocks,
    Causal,
    Dense,
    Documents,
    Grid,
    LeftPadding,
    Lengths,
    NoMask,
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
    assert (a & NoMask()) is a
    assert isinstance(a | NoMask(), NoMask)
    assert isinstance(~a, Not)


@pytest.mark.parametrize("queries", [1, 3, N])
def test_simplify_changes_nothing(queries):
    starts = LeftPadding(torch.tensor([0, 4]))
    masks = [Causal(), Window(2, 3), Window(N, 0), Window(N, N), Window(2, 3) & Causal(), Causal() & starts]
    for mask in [*masks, Window(N) & Causal() & starts, Causal() | Prefix(2)]:
        simple = mask.simplify(queries, N)
        allowed = [m.dense(B, 1, queries, N).expand(B, 1, queries, N) for m in (simple, mask)]
        assert torch.equal(*allowed)
    assert isinstance(Causal().simplify(1, N), NoMask)
    assert isinstance((Window(N) & Causal()).simplify(N, N), Causal)
    assert isinstance((Window(2, 3) & Causal()).simplify(N, N), Window)


@pytest.mark.parametrize("queries", [1, 3, N])
def test_what_masks_promise_holds(queries):
    """Kernels skip the care for keys that nobody sees, and for queries that see nothing, where a mask promises none."""
    starts, ids = LeftPadding(torch.tensor([0, 4])), torch.tensor([[0] * 3 + [1] * (N - 3)] * B)
    masks = [Causal(), Window(1, 2), Documents(ids), starts, Causal() & starts, Causal() & Documents(ids)]
    for mask in [*masks, Prefix(2), Causal() | Prefix(2), Padding(torch.ones(B, N, dtype=torch.bool)), ~Causal()]:
        allowed = mask.dense(B, 1, queries, N).expand(B, 1, queries, N)
        real = torch.arange(N) >= (starts.starts[:, None] if "LeftPadding" in str(mask) else 0)  # (B, N)
        if mask.sees_itself():
            assert allowed.diagonal(N - queries, -2, -1).all()
        if mask.last_sees_all():
            assert (allowed[:, 0, -1] | ~real).all()


@pytest.mark.parametrize(
    "mask", [Causal(), Window(2, 1), Grid(1, N, 2), Window(1, 4) & Causal(), Window(1) | Window(0, 2), Prefix(2)]
)
def test_reach_is_what_is_seen(mask):
    i, j = torch.arange(N)[:, None], torch.arange(N)
    left, right = mask.extent()
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
