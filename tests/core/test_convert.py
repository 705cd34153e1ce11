import pytest
import torch
from torch import nn

from core.convert import (
    TRANSPOSED,
    Row,
    Unused,
    absent,
    export_state_dict,
    half_split,
    load,
    reordered,
    shaped,
    stacked,
)
from core.positions import Rotary

IN, OUT = 5, 7
TABLE = [
    Row("theirs.w", "0.weight", TRANSPOSED),
    Row(("theirs.a", "theirs.b"), "0.bias", stacked(3, 4)),
    Row("theirs.norm", "1.weight", shaped((1, OUT), (OUT,))),
    Row((), "1.bias", absent(OUT)),
    Unused("theirs.buffer.*"),
]


def model():
    return nn.Sequential(nn.Linear(IN, OUT), nn.LayerNorm(OUT))


def state(**changes):
    rng = torch.Generator().manual_seed(0)
    shapes = {"theirs.w": (IN, OUT), "theirs.a": (3,), "theirs.b": (4,), "theirs.norm": (1, OUT), "theirs.buffer.x": ()}
    return {name: torch.randn(shape, generator=rng) for name, shape in (shapes | changes).items() if shape is not None}


def test_there_and_back_again():
    ours, theirs = model(), state()
    load(ours, theirs, TABLE)
    values = ours.state_dict()
    assert torch.equal(values["0.weight"], theirs["theirs.w"].T)
    assert torch.equal(values["0.bias"], torch.cat([theirs["theirs.a"], theirs["theirs.b"]]))
    assert not values["1.bias"].any()
    back = export_state_dict(ours, TABLE)
    assert back.keys() == theirs.keys() - {"theirs.buffer.x"}
    for name, value in back.items():
        assert torch.equal(value, theirs[name])
        assert value.is_contiguous()


@pytest.mark.parametrize(
    ("changes", "table", "message"),
    [
        ({"theirs.more": (1,)}, TABLE, "no row of the table takes these weights: theirs.more"),
        ({"theirs.a": None}, TABLE, "these weights are missing: theirs.a"),
        ({"theirs.w": (OUT, IN)}, TABLE, r"shapes differ: 0.weight \(5, 7\) for \(7, 5\)"),
        ({"theirs.w": None}, TABLE[1:], "no row of the table fills these parameters: 0.weight"),
    ],
)
def test_nothing_is_written_unless_all_of_it_fits(changes, table, message):
    ours = model()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load(ours, state(**changes), table)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_what_they_have_no_place_for_is_not_dropped():
    ours = model()
    load(ours, state(), TABLE)
    nn.init.ones_(ours.get_parameter("1.bias"))
    with pytest.raises(ValueError, match="no place for a bias"):
        export_state_dict(ours, TABLE)
    with pytest.raises(ValueError, match=r"no row of the table takes these parameters: 1\.bias"):
        export_state_dict(ours, [row for row in TABLE if not (isinstance(row, Row) and row.ours == "1.bias")])


def test_half_split_turns_adjacent_pairs_into_ours():
    """Queries turned in adjacent pairs, then put into our order, are our turned queries."""
    heads, D, L = 3, 10, 11
    x = torch.randn(1, L, heads * D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = torch.arange(L)[:, None]
    angle = at * 10_000.0 ** (-torch.arange(0, D, 2) / D)  # (L, D / 2)
    pairs = torch.view_as_complex(x.unflatten(-1, (heads, D // 2, 2)).contiguous())  # (1, L, H, D / 2)
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).flatten(2)  # (1, L, HD)
    order = half_split(heads, D)
    rotate = Rotary(D).rotation(at).rotate
    ours = rotate(x[..., order].unflatten(-1, (heads, D)).transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(ours, turned[..., order], atol=1e-6, rtol=0)
    assert torch.equal(reordered(order).inverse(reordered(order).forward([x[0].T]))[0], x[0].T)
