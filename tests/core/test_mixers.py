"""Every mixer against its definition, and one test for what all of them remember."""

import pytest
import torch
from torch import nn

from core.cache import Cache, KVCache, RecurrentState, WindowCache
from core.config import CAPABILITIES, GRID_KINDS, Mixer, PositionConfig, PositionKind, TransformerConfig
from core.layers import Transformer
from core.masks import Causal, Lengths, NoMask, Padding, Window
from core.mixers import delta_attention as delta
from core.mixers import linear_attention as linear
from core.positions import make_position

B, H, L, D, E = 2, 3, 37, 5, 7
C, HEADS, DEPTH, N = 24, 6, 2, 13


def tensors(seed=0):
    rng = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(B, H, L, D, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return q, k, torch.randn(B, H, L, E, generator=rng, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def same(same_gradients):
    """Equal outputs and equal gradients."""

    def compare(ours, theirs, inputs):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
        same_gradients(ours, inputs, theirs, rtol=1e-8, atol=1e-9)

    return compare


def test_linear_forms_are_one_function(same):
    q, k, v = tensors()
    fq, fk = linear.elu_features(q), linear.elu_features(k)
    oracle = linear.quadratic(fq, fk, v, causal=True)
    same(linear.recurrent(fq, fk, v)[0], oracle, (q, k, v))
    for chunk in (1, 11, 64):
        same(linear.chunked(fq, fk, v, chunk=chunk)[0], oracle, (q, k, v))
    first, sums = linear.chunked(fq[:, :, :19], fk[:, :, :19], v[:, :, :19], chunk=7)
    second, _ = linear.recurrent(fq[:, :, 19:], fk[:, :, 19:], v[:, :, 19:], sums)
    same(torch.cat([first, second], 2), oracle, (q, k, v))
    same(linear.full(fq, fk, v), linear.quadratic(fq, fk, v, causal=False), (q, k, v))


def test_performer_estimates_softmax():
    rng = torch.Generator().manual_seed(0)
    q, k = (0.5 * torch.randn(1, 1, 29, 8, generator=rng) for _ in range(2))
    truth = (q @ k.mT * 8**-0.5).exp()

    def error(features):
        directions = linear.orthogonal_directions(features, 8)
        fq, fk = (linear.performer_features(x * 8**-0.25, directions) for x in (q, k))
        return ((fq @ fk.mT - truth) / truth).abs().mean().item()

    assert error(4096) < 0.05
    assert error(4096) < error(16) / 3


@pytest.mark.parametrize("gated", [True, False])
def test_delta_forms_are_one_function(gated, same):
    q, k, v = tensors()
    rng = torch.Generator().manual_seed(1)
    beta = torch.rand(B, H, L, generator=rng, dtype=torch.float64, requires_grad=True)
    fade = torch.rand(B, H, L, generator=rng, dtype=torch.float64, requires_grad=True)
    log_alpha = -fade if gated else torch.zeros(B, H, L, dtype=torch.float64)
    inputs = [q, k, v, beta, *([fade] if gated else [])]
    oracle, memory = delta.recurrent(q, delta.unit(k), v, beta, log_alpha)
    for chunk in (1, 11, 64):
        ours, kept = delta.chunked(q, delta.unit(k), v, beta, log_alpha, chunk=chunk)
        same(ours, oracle, inputs)
        torch.testing.assert_close(kept, memory)


def test_delta_stores_and_corrects():
    """One key, written twice: with β = 1 the second value replaces the first."""
    k = torch.zeros(1, 1, 3, 2)
    k[..., 0] = 1.0
    v = torch.tensor([[[[5.0], [7.0], [7.0]]]])
    out, _ = delta.recurrent(k, k, v, torch.tensor([[[1.0, 1.0, 0.0]]]), torch.zeros(1, 1, 3))
    assert out.flatten().tolist() == [5.0, 7.0, 7.0]


def model(mixer, kind=PositionKind.rotary, num_kv_heads=None):
    torch.manual_seed(0)
    config = TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS, num_kv_heads=num_kv_heads, mixer=mixer, window=4)
    trunk = Transformer(config, make_position(PositionConfig(kind), config, (N,)))
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, std=0.3)
    return trunk.eval()


def tokens():
    return torch.randn(B, N, C, generator=torch.Generator().manual_seed(1))


SCORES = [kind for kind in PositionKind if kind not in GRID_KINDS]  # softmax takes them all
NO_MAPS = [mixer for mixer in Mixer if mixer not in (Mixer.softmax, Mixer.window)]
NO_SCORES = [PositionKind.none, PositionKind.learned, PositionKind.rotary]
CASES = [
    *((Mixer.softmax, kind, Causal(), lambda: KVCache(DEPTH, N)) for kind in SCORES),
    *((Mixer.softmax, kind, Window(4), lambda: WindowCache(DEPTH, 4)) for kind in SCORES),
    *((Mixer.softmax, kind, Window(4), lambda: KVCache(DEPTH, N)) for kind in NO_SCORES),
    *((Mixer.window, kind, Causal(), lambda: WindowCache(DEPTH, 4)) for kind in NO_SCORES),
    *((mixer, kind, Causal(), lambda: RecurrentState(DEPTH)) for mixer in NO_MAPS for kind in NO_SCORES),
]
NAMES = [f"{mixer.value}-{kind.value}-{type(mask).__name__}-{n}" for n, (mixer, kind, mask, _) in enumerate(CASES)]


@pytest.mark.parametrize(("mixer", "kind", "mask", "make"), CASES, ids=NAMES)
@pytest.mark.parametrize("kv_heads", [None, 2], ids=["full", "grouped"])
@pytest.mark.parametrize("chunks", [[7, 4, 1, 1], [1] * N], ids=["7+4+1+1", "one by one"])
@torch.no_grad()
def test_cached_equals_full(mixer, kind, mask, make, kv_heads, chunks):
    trunk, x, cache = model(mixer, kind, kv_heads), tokens(), make()
    parts = [trunk(part, mask=mask, cache=cache) for part in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), trunk(x, mask=mask), rtol=1e-4, atol=1e-5)
    assert cache.length == N


@pytest.mark.parametrize(("mixer", "kind", "mask", "make"), CASES[:2] + CASES[-3:], ids=NAMES[:2] + NAMES[-3:])
@torch.no_grad()
def test_reorder_picks_batch_entries(mixer, kind, mask, make):
    trunk, x, cache = model(mixer, kind), tokens(), make()
    trunk(x[:, :9], mask=mask, cache=cache)
    cache.reorder(torch.tensor([1, 1, 0]))
    mixed = torch.cat([x[[1, 1, 0], :9], x[[0, 1, 1], 9:]], 1)
    torch.testing.assert_close(
        trunk(mixed[:, 9:], mask=mask, cache=cache), trunk(mixed, mask=mask)[:, 9:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", SCORES)
@torch.no_grad()
def test_crop_forgets_the_last_tokens(kind):
    trunk, x, cache = model(Mixer.softmax, kind), tokens(), KVCache(DEPTH, N)
    trunk(x.flip(1)[:, :4], mask=Causal(), cache=cache)
    cache.crop(0)
    trunk(x[:, :9], mask=Causal(), cache=cache)
    cache.crop(5)
    assert cache.length == 5
    torch.testing.assert_close(
        trunk(x[:, 5:], mask=Causal(), cache=cache), trunk(x, mask=Causal())[:, 5:], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_what_is_gone_cannot_be_cropped_to():
    for mixer, mask, cache in (
        (Mixer.linear, Causal(), RecurrentState(DEPTH)),
        (Mixer.softmax, Window(4), WindowCache(DEPTH, 4)),
    ):
        kept: Cache = cache
        model(mixer)(tokens(), mask=mask, cache=kept)
        with pytest.raises(ValueError, match="cannot go back"):
            kept.crop(3)


@pytest.mark.parametrize("mixer", Mixer)
@torch.no_grad()
def test_no_mixer_sees_the_future(mixer):
    trunk, x = model(mixer), tokens()
    before = trunk(x, mask=Causal())
    changed = x.clone()
    changed[:, 6] = changed[:, 6].flip(-1)
    after = trunk(changed, mask=Causal())
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-6)
    assert (after[:, 6:] - before[:, 6:]).abs().amax((0, 2)).min() > 1e-5


@pytest.mark.parametrize("mixer", [mixer for mixer in Mixer if {"full", "padding"} <= CAPABILITIES[mixer]])
@torch.no_grad()
def test_padding_moves_nothing_and_everything_else_is_seen(mixer):
    trunk, x = model(mixer), tokens()
    lengths = torch.tensor([N, 8])
    valid = torch.arange(N) < lengths[:, None]
    padded = trunk(x, mask=Lengths(lengths))
    torch.testing.assert_close(trunk(x, mask=Padding(valid)), padded)
    torch.testing.assert_close(trunk(x[1:, :8], mask=NoMask())[0], padded[1, :8], rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[1, 8:] = 9.0
    torch.testing.assert_close(trunk(changed, mask=Lengths(lengths))[valid], padded[valid], rtol=0, atol=1e-6)
    changed = x.clone()
    changed[:, 2] = changed[:, 2].flip(-1)
    assert (trunk(changed) - trunk(x)).abs().amax((0, 2))[1] > 1e-5  # the past sees it, too


@pytest.mark.parametrize("mixer", [mixer for mixer in Mixer if {"causal", "padding"} <= CAPABILITIES[mixer]])
@torch.no_grad()
def test_padding_in_front_moves_nothing(mixer):
    trunk, x, valid = model(mixer, PositionKind.none), tokens(), torch.arange(N) >= torch.tensor([[0], [5]])
    mask = Causal() & Padding(valid)
    padded = trunk(x, mask=mask)
    torch.testing.assert_close(trunk(x[1:, 5:], mask=Causal())[0], padded[1, 5:], rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[1, :5] = 9.0
    torch.testing.assert_close(trunk(changed, mask=mask)[valid], padded[valid], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_window_mixer_is_softmax_under_a_window():
    windowed, full, x = model(Mixer.window), model(Mixer.softmax), tokens()
    full.load_state_dict(windowed.state_dict())
    torch.testing.assert_close(windowed(x), full(x, mask=Window(4, 4)))
    torch.testing.assert_close(windowed(x, mask=Causal()), full(x, mask=Window(4)))


@pytest.mark.parametrize("mixer", NO_MAPS)
def test_what_a_mixer_cannot_take_it_says(mixer):
    trunk, x = model(mixer), tokens()
    with pytest.raises(ValueError, match=f"mixer={mixer.value} takes no Window mask"):
        trunk(x, mask=Window(3))
    with pytest.raises(ValueError, match="no attention scores"):
        trunk(x, mask=Causal(), bias=torch.zeros(1, HEADS, N, N))
    if "delta" in mixer.value:
        with pytest.raises(ValueError, match="causal only"):
            trunk(x)
