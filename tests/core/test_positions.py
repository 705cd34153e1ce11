import pytest
import torch

from core.attention import attend, reference
from core.bias import LowRankBias, PairBias
from core.config import PositionConfig, PositionKind, TransformerConfig
from core.masks import Causal
from core.positions import (
    ALiBi,
    AxialRotary,
    CentredRotary,
    Learned,
    MixedRotary,
    Relative,
    Rotary,
    Sinusoidal,
    make_position,
)

L, C, D = 7, 24, 12


def dots(rotary, at):
    """Scores of one query and key vector at every pair of places."""
    rng = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, D, generator=rng, dtype=torch.float64).expand(1, 1, len(at), D) for _ in range(2))
    rotate = rotary.rotation(at).rotate
    return (rotate(q) @ rotate(k).mT)[0, 0]  # (L, L)


def test_rotary_scores_depend_on_the_distance_alone():
    at = torch.arange(L)[:, None]
    near, far = dots(Rotary(D), at), dots(Rotary(D), at + 1009)
    torch.testing.assert_close(near, far, rtol=0, atol=2e-3)  # float32 angles at position 1,000
    for offset in range(L):
        diagonal = near.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert near.std() > 0.1


def test_axial_rotary_depends_on_row_and_column_distance():
    at = torch.cartesian_prod(torch.arange(3), torch.arange(5))
    near, moved = dots(AxialRotary(D), at), dots(AxialRotary(D), at + torch.tensor([2, 11]))
    torch.testing.assert_close(near, moved, rtol=0, atol=1e-4)
    assert not torch.allclose(near[0, 1], near[0, 5])  # one column away is not one row away


def test_rotary_keeps_lengths_and_place_zero():
    x = torch.randn(2, 3, L, D)
    rotate = Rotary(D).rotation(torch.arange(L)[:, None]).rotate
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(x)[:, :, 0], x[:, :, 0])


def test_sinusoidal_by_hand():
    out = Sinusoidal(4).add(torch.zeros(1, 2, 4), torch.tensor([[0], [1]]))
    expected = torch.tensor([[0, 0, 1, 1], [1.0, 0.01, 1.0, 0.01]])
    expected[1] = torch.tensor(
        [torch.tensor(1.0).sin(), torch.tensor(0.01).sin(), torch.tensor(1.0).cos(), torch.tensor(0.01).cos()]
    )
    torch.testing.assert_close(out[0], expected)


def test_learned_has_its_own_vector_for_each_place():
    position = Learned(C, (3, 5))
    at = torch.cartesian_prod(torch.arange(3), torch.arange(5))
    out = position.add(torch.zeros(2, 15, C), at)
    torch.testing.assert_close(out[1], position.table)
    batched = torch.stack([at, at.flip(0)])
    torch.testing.assert_close(position.add(torch.zeros(2, 15, C), batched)[1], position.table.flip(0))
    with pytest.raises(ValueError, match="outside of the 15 learned"):
        position.add(torch.zeros(1, 1, C), torch.tensor([[3, 0]]))


def test_alibi_falls_with_the_distance():
    """Softmax over slope · j equals softmax over -slope · (i - j), far from the beginning, too."""
    heads, start = 8, 5003
    at = torch.arange(start, start + L)[:, None]
    bias = make_position(PositionConfig(PositionKind.alibi), TransformerConfig(dim=16, num_heads=heads), (L,)).bias(
        at, at
    )
    assert bias is not None
    slopes = torch.tensor([2.0**-n for n in range(1, 9)])[:, None, None]
    expected = -slopes * (at - at.T)  # (H, L, L)
    torch.testing.assert_close(bias.dense()[0].softmax(-1), expected.softmax(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [5, 8])
def test_alibi_is_exact_in_half_precision(dtype, heads):
    """Neither type holds positions past 2,048; in halves, they do no more harm than the distances themselves."""
    queries, keys, width = 23, 3001, 16
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, width, generator=rng).to(dtype) for n in (queries, keys, keys))
    at = torch.arange(keys)[:, None]
    alibi = ALiBi(heads)
    distances = PairBias(-alibi.slopes[None, :, None, None].double() * (at[-queries:] - at.T))
    want = reference(q.double(), k.double(), v.double(), mask=Causal(), bias=distances)

    def error(bias):
        return (attend(q, k, v, mask=Causal(), bias=bias).double() - want).abs().max()

    one_feature = LowRankBias(alibi.slopes[None, :, None, None].expand(1, -1, queries, 1), at[None, None].float())
    assert error(alibi.bias(at[-queries:], at)) < 1.5 * error(distances) < 0.01
    assert error(one_feature) > 0.1


def test_relative_buckets_are_exact_near_by_and_shared_far_away():
    position = Relative(3, buckets=32, farthest=128)
    bucket = position.bucket(torch.tensor([0, -1, -7, -8, -127, -500, 1, 7, 500]))
    assert bucket.tolist() == [0, 1, 7, 8, 15, 15, 17, 23, 31]
    with torch.no_grad():
        position.table[17] = torch.tensor([1.0, 2.0, 3.0])
    bias = position.bias(torch.arange(L)[:, None], torch.arange(L)[:, None])
    assert bias.dense()[0, :, 2, 3].tolist() == [1.0, 2.0, 3.0]  # the next key
    assert bias.dense()[0, :, 3, 2].tolist() == [0.0, 0.0, 0.0]


def test_what_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="domain=vision"):
        make_position(PositionConfig(PositionKind.axial), TransformerConfig(dim=C, num_heads=2), (L,))
    with pytest.raises(ValueError, match="multiple of 4"):
        make_position(PositionConfig(PositionKind.rotary), TransformerConfig(dim=6, num_heads=1), (3, 5))
    with pytest.raises(ValueError, match="axes"):
        Rotary(D).rotation(torch.zeros(L, 2))


@pytest.mark.parametrize("kind", [PositionKind.axial, PositionKind.centred, PositionKind.mixed, PositionKind.learned])
@pytest.mark.parametrize("table", [False, True])
def test_a_token_that_stands_nowhere_is_left_alone(kind, table):
    if table and kind is PositionKind.learned:
        with pytest.raises(ValueError, match=r"position\.table goes with"):
            make_position(PositionConfig(kind, table=True), TransformerConfig(dim=C, num_heads=2), (3, 5))
        return
    position = make_position(PositionConfig(kind, table=table), TransformerConfig(dim=C, num_heads=2, depth=2), (3, 5))
    at = torch.tensor([[-1, -1], [2, 3], [1, 4]])
    x, q = torch.randn(1, 3, C), torch.randn(1, 2, 3, D)
    added = position.add(x, at)
    assert torch.equal(added[:, 0], x[:, 0])
    assert torch.equal(added[:, 1], x[:, 1]) != (table or kind is PositionKind.learned)
    for rotation in position.rotations(at, 2):
        if rotation is not None:
            turned = rotation.rotate(q)
            assert torch.equal(turned[:, :, 0], q[:, :, 0])
            assert not torch.allclose(turned[:, :, 1:], q[:, :, 1:])


def test_centred_rotary_is_in_parts_of_the_image():
    """The middle of the upper half has the same angles on every grid."""
    few = CentredRotary(D, (2, 2)).rotation(torch.tensor([[0, 0]]))
    many = CentredRotary(D, (6, 6)).rotation(torch.tensor([[1, 1]]))
    x = torch.randn(1, 1, 1, D)
    torch.testing.assert_close(few.rotate(x), many.rotate(x))


def test_mixed_rotary_turns_every_head_of_every_block_its_own_way():
    at = torch.tensor([[2, 3]])
    x = torch.randn(1, 1, 1, D).expand(1, 3, 1, D)
    turned = torch.stack([each.rotate(x) for each in MixedRotary(3, D, depth=2).rotations(at, 2)])  # (2, 1, 3, 1, D)
    assert len({tuple(row) for row in turned.flatten(0, -2).tolist()}) == 6
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1).expand(2, 1, 3, 1))
