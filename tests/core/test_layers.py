"""Whole Transformers: causality, padding, order, caches."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.cache import KeysAndValues, KVCache
from core.config import GRID_KINDS, Activation, Mixer, Norm, PositionConfig, PositionKind, TransformerConfig
from core.layers import DropPath, FeedForward, Transformer, add_biases
from core.masks import Causal, Padding, Window
from core.mixers.softmax import MultiHeadAttention
from core.positions import make_position
from core.probe import Probe

B, L, C, HEADS, DEPTH = 2, 13, 24, 6, 3
SEQUENTIAL = [kind for kind in PositionKind if kind not in GRID_KINDS]
STYLES = {
    "classic": TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS),
    "modern": TransformerConfig(
        dim=C,
        depth=DEPTH,
        num_heads=HEADS,
        num_kv_heads=2,
        activation=Activation.swiglu,
        norm=Norm.rms,
        qk_norm=True,
        linear_bias=False,
        embed_norm=True,
    ),
    "relu2": TransformerConfig(
        dim=C, depth=DEPTH, num_heads=HEADS, num_kv_heads=3, activation=Activation.relu2, mlp_ratio=1.5
    ),
}


def model(kind=PositionKind.rotary, style="classic", seed=0):
    torch.manual_seed(seed)
    trunk = Transformer(STYLES[style], make_position(PositionConfig(kind), STYLES[style], (L,)))
    for parameter in trunk.parameters():  # default zeros and ones would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return trunk.eval()


def tokens(seed=1):
    return torch.randn(B, L, C, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", SEQUENTIAL)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("chunks", [[7, 4, 1, 1], [1] * L, [L]], ids=["7+4+1+1", "one by one", "at once"])
@torch.no_grad()
def test_cached_equals_full(kind, style, chunks):
    trunk, x, cache = model(kind, style), tokens(), KVCache(DEPTH, L)
    parts = [trunk(part, mask=Causal(), cache=cache) for part in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), trunk(x, mask=Causal()), rtol=1e-4, atol=1e-5)
    assert cache.length == L


@pytest.mark.parametrize("mixer", Mixer)
@pytest.mark.parametrize("kind", [PositionKind.learned, PositionKind.rotary])
@torch.no_grad()
def test_rows_that_begin_later_are_read_as_if_alone(mixer, kind):
    """Left padding, of any content, changes nothing; nor does it where rows leave the batch."""
    config = replace(STYLES["classic"], mixer=mixer, window=4)
    torch.manual_seed(3)
    trunk = Transformer(config, make_position(PositionConfig(kind), config, (L,))).eval()
    x, starts = tokens(), torch.tensor([5, 0])
    cache = trunk.make_cache(L)
    cache.starts = starts
    got = [trunk(part, mask=Causal(), cache=cache)[:, -1] for part in x[:, :11].split([7, 1, 3], dim=1)]
    cache.reorder(torch.tensor([0]))
    got.append(trunk(x[:1, 11:12], mask=Causal(), cache=cache)[:, -1])
    for row, start in enumerate(starts.tolist()):
        alone = trunk(x[row : row + 1, start:12], mask=Causal())[0]
        for stop, found in zip((7, 8, 11, 12), got, strict=True):
            if row < len(found):
                torch.testing.assert_close(found[row], alone[stop - start - 1], rtol=1e-4, atol=1e-5)


def test_a_full_cache_says_so_and_keeps_what_it_has():
    cache = KeysAndValues(5)
    cache.append(torch.ones(B, 2, 3, 4), torch.ones(B, 2, 3, 4))
    with pytest.raises(ValueError, match="6 tokens do not fit a cache of 5"):
        cache.append(torch.ones(B, 2, 3, 4), torch.ones(B, 2, 3, 4))
    assert cache.length == 3


@pytest.mark.parametrize("kind", SEQUENTIAL)
@torch.no_grad()
def test_a_full_transformer_cache_goes_on_after_its_error(kind):
    trunk, x = model(kind), tokens()
    cache = trunk.make_cache(L)
    first = trunk(x[:, :7], mask=Causal(), cache=cache)
    with pytest.raises(ValueError, match="tokens do not fit a cache of"):
        trunk(x[:, : L - 5], mask=Causal(), cache=cache)
    rest = trunk(x[:, 7:], mask=Causal(), cache=cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), trunk(x, mask=Causal()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_positions_and_masks_may_change_in_place_between_calls():
    trunk, x = model(), tokens()
    positions, valid = torch.arange(L)[:, None], torch.ones(B, L, dtype=torch.bool)
    mask = Padding(valid)
    before = trunk(x, positions=positions, mask=mask)
    positions += torch.arange(L)[:, None]
    moved = trunk(x, positions=positions, mask=mask)
    torch.testing.assert_close(moved, trunk(x, positions=positions.clone(), mask=mask))
    assert not torch.allclose(moved, before)
    valid[:, 3] = False
    torch.testing.assert_close(trunk(x, mask=mask), trunk(x, mask=Padding(valid.clone())))
    assert not torch.allclose(trunk(x, mask=mask), trunk(x))


@pytest.mark.parametrize("kind", SEQUENTIAL)
@torch.no_grad()
def test_no_causal_leak(kind):
    trunk, x = model(kind), tokens()
    before = trunk(x, mask=Causal())
    for j in (0, 5, L - 1):
        changed = x.clone()
        changed[:, j] = changed[:, j].flip(-1)  # a constant would vanish in the norms
        after = trunk(changed, mask=Causal())
        assert torch.equal(after[:, :j], before[:, :j])
        assert not torch.allclose(after[:, j:], before[:, j:])


@torch.no_grad()
def test_window_forgets():
    trunk, x = model(), tokens()
    reach = 2 * DEPTH  # two tokens back in each block
    changed = x.clone()
    changed[:, 0] = changed[:, 0].flip(-1)
    difference = (trunk(changed, mask=Window(2)) - trunk(x, mask=Window(2))).abs().amax((0, 2))
    assert difference[: reach + 1].min() > 1e-4
    assert difference[reach + 1 :].max() == 0


@torch.no_grad()
def test_padding_never_moves_a_valid_output():
    trunk, x = model(), tokens()
    valid = torch.arange(L) < torch.tensor([[L], [8]])
    padded = trunk(x, mask=Padding(valid))
    x[1, 8:] = 1e3
    torch.testing.assert_close(trunk(x, mask=Padding(valid))[valid], padded[valid], rtol=0, atol=0)
    torch.testing.assert_close(trunk(x[1:, :8])[0], padded[1, :8], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_positions_tokens_are_a_set():
    order = torch.randperm(L, generator=torch.Generator().manual_seed(3))
    trunk, x = model(PositionKind.none), tokens()
    torch.testing.assert_close(trunk(x[:, order]), trunk(x)[:, order], rtol=1e-4, atol=1e-5)
    for kind in SEQUENTIAL[1:]:
        assert not torch.allclose(model(kind)(x[:, order]), model(kind)(x)[:, order], atol=1e-2)


@torch.no_grad()
def test_places_can_be_given():
    trunk, x = model(PositionKind.learned), tokens()
    at = torch.arange(L)[:, None]
    torch.testing.assert_close(trunk(x, positions=at), trunk(x))
    torch.testing.assert_close(trunk(x, positions=at.expand(B, L, 1)), trunk(x))
    assert not torch.allclose(trunk(x, positions=at.flip(0)), trunk(x))


def test_a_bias_may_differ_from_block_to_block():
    trunk, x = model(), tokens()
    hidden, blocks = trunk.prepare(x)
    assert len(blocks) == DEPTH
    for number, (block, inputs) in enumerate(blocks):
        bias = torch.full((1, HEADS, L, L), float(number)).tril()
        hidden = block(hidden, **inputs | {"bias": add_biases(inputs["bias"], bias)})
    assert not torch.allclose(trunk.norm(hidden), trunk(x))
    hidden, blocks = trunk.prepare(x)
    for block, inputs in blocks:
        hidden = block(hidden, **inputs)
    assert torch.equal(trunk.norm(hidden), trunk(x))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", SEQUENTIAL)
@torch.no_grad()
def test_the_last_tokens_alone_are_those_of_all(kind, style):
    trunk, x = model(kind, style), tokens()
    for n in (1, 3, L):
        torch.testing.assert_close(trunk(x, mask=Causal(), last=n), trunk(x, mask=Causal())[:, -n:])


@torch.no_grad()
def test_a_probe_reads_without_changing():
    trunk, x, probe = model(style="modern"), tokens(), Probe()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # the fused kernel still runs
        assert torch.equal(trunk(x, mask=Causal(), probe=probe), trunk(x, mask=Causal()))
    assert [weights.shape for weights in probe.attention] == [(B, HEADS, L, L)] * DEPTH
    for weights in probe.attention:
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, HEADS, L))
        assert weights.triu(1).abs().max() == 0


def test_attention_equals_torchs_own_layer():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(C, HEADS), nn.MultiheadAttention(C, HEADS, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours.qkv.load_state_dict({"weight": theirs.in_proj_weight, "bias": theirs.in_proj_bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())
    x = tokens()
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-5, atol=1e-5)


def test_feed_forward_by_hand():
    x = torch.tensor([[[2.0]]])
    for activation, hidden in ((Activation.relu2, 4.0), (Activation.swiglu, 2 * 2 / (1 + torch.e**-2))):
        layer = FeedForward(1, 1, activation=activation, linear_bias=False)
        for parameter in layer.parameters():
            nn.init.ones_(parameter)
        assert layer(x).item() == pytest.approx(hidden, rel=1e-5)


def test_zero_init_starts_as_the_identity():
    config = TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS, zero_init=True, linear_bias=False)
    trunk, x = Transformer(config), tokens()
    torch.testing.assert_close(trunk(x), trunk.norm(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 7}, "multiple of the 7 heads"),
        ({"num_kv_heads": 4}, "multiple of the 4 key/value heads"),
        ({"depth": 0}, "depth >= 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
    ],
)
def test_impossible_sizes_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        Transformer(TransformerConfig(**{"dim": C, "depth": 1, "num_heads": HEADS, **settings}))


def test_drop_path_leaves_whole_blocks_out_of_some_samples():
    torch.manual_seed(0)
    config = TransformerConfig(dim=C, depth=2, num_heads=HEADS, drop_path=0.4)
    block = Transformer(config).blocks[1].train()
    x = torch.randn(997, 1, C)
    added = block(x) - x
    assert 0.1 < (added.abs().amax((1, 2)) == 0).float().mean() < 0.23  # both halves are left out: 0.4² = 0.16
    first = Transformer(config).blocks[0].train()
    assert ((first(x) - x).abs().amax((1, 2)) > 0).all()  # the chance rises from 0
    drop = DropPath(0.4)
    assert drop(torch.ones(9973, 1, 1)).mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(ValueError, match="drop_path must lie in"):
        Transformer(TransformerConfig(drop_path=1.0))
