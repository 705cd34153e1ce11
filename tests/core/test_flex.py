"""FlexAttention on a CPU against the definition: forward alone, as torch has no more. Sizes are different primes."""

import pytest
import torch

from core.attention import attend, reference
from core.bias import LowRankBias, PairBias
from core.kernels.flex import known_blocks
from core.masks import Causal, Dense, Documents, Grid, Lengths, NoMask, Padding, Prefix, Window, bigbird
from core.planner import plan

B, H, G, L, M, D = 2, 6, 3, 5, 11, 7


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


VALID = torch.arange(M) < torch.tensor([M - 2, M - 6])[:, None]  # (B, M)
IDS = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [3] * 2])
MASKS = {
    "everything": NoMask(),
    "causal": Causal(),
    "window": Window(3, 1),
    "padding": Padding(VALID),
    "lengths": Lengths(torch.tensor([M, 0])),
    "window & padding & causal": Window(2, 2) & Padding(VALID) & Causal(),
    "documents & causal": Documents(IDS) & Causal(),
    "prefix | causal": Prefix(3) | Causal(),
    "not a window": ~Window(2, 2),
    "nothing": ~NoMask(),
    "grid": Grid(1, M, 2),
    "bigbird": bigbird(M, 2),
}
BIASES = {
    "none": None,
    "pairs": PairBias(random(1, H, 1, M)),
    "low rank": LowRankBias(random(1, H, L, 3), random(B, 1, M, 3)),
    "both": PairBias(random(B, 1, L, M)) + LowRankBias(random(1, 1, L, 3), random(B, H, M, 3)),
}


WITHOUT_COMPILER = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # it would be slow


@pytest.fixture
def eagerly():
    """Half a second a mask faster."""
    with torch.compiler.set_stance("force_eager"):
        yield


@WITHOUT_COMPILER
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())
@pytest.mark.parametrize("heads", [G, H], ids=["grouped", "full"])
def test_outputs_equal_the_definition(mask, bias, heads):
    q, k, v = random(B, H, L, D), random(B, heads, M, D, seed=1), random(B, heads, M, D, seed=2)
    got = attend(q, k, v, mask=mask, bias=bias, scale=0.3, backend="flex")
    torch.testing.assert_close(got, reference(q, k, v, mask=mask, bias=bias, scale=0.3), rtol=1e-12, atol=1e-12)


@WITHOUT_COMPILER
@pytest.mark.usefixtures("eagerly")
def test_a_table_for_each_head():
    q, k, v = random(B, H, L, D), random(B, H, M, D, seed=1), random(B, H, M, D, seed=2)
    for heads in (1, H):
        mask = Dense(random(B, heads, L, M) > 0) & Padding(VALID)
        got = attend(q, k, v, mask=mask, backend="flex")
        torch.testing.assert_close(got, reference(q, k, v, mask=mask), rtol=1e-12, atol=1e-12)


@WITHOUT_COMPILER
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("mask", [Padding(VALID), Causal() & Lengths(torch.tensor([M - 4, 0])), Prefix(3)])
def test_what_is_masked_for_all_may_be_nan(mask):
    q, k, v = random(B, H, L, D), random(B, G, M, D, seed=1), random(B, G, M, D, seed=2)
    clean = attend(q, k, v, mask=mask, backend="flex")
    left_out = ~mask.dense(B, H, L, M).any(2).any(1)[:, None].expand(B, G, M)
    k[left_out], v[left_out] = torch.nan, torch.inf
    torch.testing.assert_close(attend(q, k, v, mask=mask, backend="flex"), clean)


def traced(mask, keys):
    q, k, v = random(B, H, L, D), random(B, H, keys, D, seed=1), random(B, H, keys, D, seed=2)
    got = attend(q, k, v, mask=mask, backend="flex")
    torch.testing.assert_close(got, reference(q, k, v, mask=mask), rtol=1e-12, atol=1e-12)


@pytest.mark.plain
def test_masks_of_one_kind_are_compiled_once_for_all_lengths():
    torch.compiler.reset()
    for keys in (11, 13, 17):  # the second length makes it general
        traced(Documents(IDS.new_zeros(B, keys)) & Causal(), keys)
    with torch.compiler.set_stance("fail_on_recompile"):
        for keys in (19, 23):
            traced(Documents(torch.arange(keys).expand(B, keys) // 3) & Causal(), keys)


@pytest.mark.plain
def test_it_is_part_of_a_compiled_graph():
    torch.compiler.reset()
    q, k, v = random(B, H, L, D), random(B, G, M, D, seed=1), random(B, G, M, D, seed=2)
    bias = random(1, H, 1, M)

    def layer(ids):
        return attend(q, k, v, mask=Documents(ids) & Causal(), bias=bias, backend="flex")

    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for ids in (IDS, IDS.flip(1)):
        torch.testing.assert_close(compiled(ids), reference(q, k, v, mask=Documents(ids) & Causal(), bias=bias))


@WITHOUT_COMPILER
@pytest.mark.usefixtures("eagerly")
def test_layers_share_the_blocks_of_a_mask():
    q, k, v = random(B, H, L, D), random(B, H, M, D, seed=1), random(B, H, M, D, seed=2)
    known_blocks.cache_clear()
    mask, other = Padding(VALID), Padding(~VALID)
    with torch.inference_mode():
        attend(q, k, v, mask=mask, backend="flex")
    for seen in (mask, other, mask):
        torch.testing.assert_close(attend(q, k, v, mask=seen, backend="flex"), reference(q, k, v, mask=seen))
    assert known_blocks.cache_info().misses == 2
    blocks, hidden = known_blocks(mask, B, H, L, M, q.device)
    assert not hidden.is_inference()
    assert not blocks.kv_num_blocks.is_inference()


@WITHOUT_COMPILER
@pytest.mark.usefixtures("eagerly")
def test_a_cpu_has_no_gradient():
    q, k, v = (t.requires_grad_() for t in (random(B, H, M, D), random(B, H, M, D, seed=1), random(B, H, M, D, seed=2)))
    trained = LowRankBias(random(1, H, M, 3).requires_grad_(), random(1, 1, M, 3))
    for inputs, bias in (((q, k, v), None), ((q.detach(), k.detach(), v.detach()), trained)):
        with pytest.raises(ValueError, match=r"gradient on a CPU .*use torch\.no_grad"):
            attend(*inputs, bias=bias, backend="flex")
    with pytest.raises(ValueError, match="bias that needs a gradient"):
        plan(q, k, v, bias=random(1, H, M, M).requires_grad_(), backend="flex", device="cuda")
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, bias=trained, backend="flex"), reference(q, k, v, bias=trained))


LONG = 2048
SPARSE = Causal() & Documents(torch.zeros(B, LONG, dtype=torch.int64))


@pytest.mark.parametrize(
    ("mask", "options", "expected"),
    [
        (SPARSE, {}, "sdpa/efficient"),  # never flex, unless by name
        (Window(64), {}, "local"),
        (Causal(), {}, "sdpa/flash"),
        (SPARSE, {"backend": "flex"}, "flex"),
        (SPARSE, {"backend": "flex", "dtype": torch.float32}, "flex"),
        (Causal(), {"backend": "flex", "keys": 2 * LONG}, "flex"),
        (bigbird(LONG, 64), {"backend": "flex", "bias": True, "grad": False}, "flex"),
        (SPARSE, {"backend": "flex", "width": 8}, "no head width below 16"),
        (SPARSE, {"backend": "flex", "dtype": torch.float64}, "no float64"),
        (SPARSE, {"backend": "flex", "bias": True, "grad": True}, "no bias that needs a gradient"),
        (SPARSE, {"backend": "flex", "device": "mps"}, "no mps tensors"),
    ],
)
def test_the_cuda_rule_on_tensors_without_storage(mask, options, expected):
    options = {"device": "cuda", "queries": LONG, "keys": LONG, "dtype": torch.bfloat16, "width": 64, **options}
    queries, keys, dtype, width = (options.pop(name) for name in ("queries", "keys", "dtype", "width"))
    q = torch.empty(B, H, queries, width, dtype=dtype, device="meta")
    k = torch.empty(B, H, keys, width, dtype=dtype, device="meta")
    bias = PairBias(torch.empty(1, H, queries, keys, device="meta")) if options.pop("bias", False) else None
    if expected.startswith("no "):
        with pytest.raises(ValueError, match=f"backend=flex cannot run this: it takes {expected}"):
            plan(q, k, k, mask=mask, bias=bias, **options)
        return
    chosen = plan(q, k, k, mask=mask, bias=bias, **options)
    assert chosen.backend == expected
    if expected == "flex":
        assert chosen.deterministic
        assert chosen.bytes == queries * keys  # a mask of bool
