"""`attend` against its definition. All sizes are different primes, so that a swapped axis fails."""

from itertools import product

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.attention import attend, probabilities, reference
from core.bias import LowRankBias, PairBias
from core.masks import Causal, Dense, Documents, Grid, Lengths, NoMask, Padding, Prefix, Window, bigbird
from core.planner import plan

B, H, G, L, M, D = 2, 6, 3, 5, 11, 7


def tensors(num_heads=G, queries=L, keys=M, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = ((B, H, queries, D), (B, num_heads, keys, D), (B, num_heads, keys, D))
    return [torch.randn(shape, generator=rng, dtype=dtype, requires_grad=True) for shape in shapes]


def valid(keys=M):
    lengths = torch.tensor([keys - 2, keys - 6])
    return torch.arange(keys) < lengths[:, None]  # (B, M)


MASKS = {
    "everything": NoMask(),
    "causal": Causal(),
    "window": Window(3, 1),
    "padding": Padding(valid()),
    "causal & padding": Causal() & Padding(valid()),
    "window & padding & causal": Window(2, 2) & Padding(valid()) & Causal(),
    "documents & causal": Documents(torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [3] * 2])) & Causal(),
    "prefix | causal": Prefix(3) | Causal(),
    "not a window": ~Window(2, 2),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("heads", [G, H, 1], ids=["grouped", "full", "single"])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("queries", [L, M], ids=["fewer queries", "square"])
def test_outputs_and_all_gradients_equal_the_definition(mask, heads, with_bias, queries, same_gradients):
    q, k, v = tensors(heads, queries)
    inputs = [q, k, v]
    bias = None
    if with_bias:
        bias = torch.randn(1, H, queries, M, dtype=torch.float64, requires_grad=True)
        inputs.append(bias)
    fused = attend(q, k, v, mask=mask, bias=bias)
    defined = reference(q, k, v, mask=mask, bias=bias)
    torch.testing.assert_close(fused, defined, rtol=1e-10, atol=1e-10)
    same_gradients(fused, inputs, defined, rtol=1e-9, atol=1e-10)


SQUARE = {
    **MASKS,
    "lengths": Lengths(torch.tensor([M, 0])),
    "grid": Grid(1, M, 2),
    "bigbird": bigbird(M, 2),
    "dense": Dense(torch.rand(1, H, M, M, generator=torch.Generator().manual_seed(2)) < 0.4),
}
BIASES = {
    "none": lambda: (None, []),
    "pairs": lambda: pairs(1, H, M, M),
    "pairs of each entry": lambda: pairs(B, 1, M, M),
    "one number a key": lambda: pairs(1, H, 1, M),
    "low rank": lambda: low_rank(H),
    "low rank for all heads": lambda: low_rank(1),
    "both": lambda: both(),
}


def pairs(*shape):
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return PairBias(values), [values]


def low_rank(heads):
    u = torch.randn(1, H, M, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(B, heads, M, 3, dtype=torch.float64, requires_grad=True)
    return LowRankBias(u, w), [u, w]


def both():
    (a, trained), (b, more) = pairs(1, H, M, M), low_rank(H)
    return a + b, trained + more


def runs(backend, mask, bias):
    """Whether the plan lets this kernel run this."""
    q, k, v = tensors(H, M)
    try:
        plan(q, k, v, mask=mask, bias=bias()[0], backend=backend)
    except ValueError:
        return False
    return True


KERNELS = [
    pytest.param(backend, mask, bias, id=f"{backend}-{of}-{added}")
    for backend in ("sdpa", "local", "pair_bias")
    for of, mask in SQUARE.items()
    for added, bias in BIASES.items()
    if runs(backend, mask, bias)
]


@pytest.mark.parametrize(("backend", "mask", "bias"), KERNELS)
@pytest.mark.parametrize("heads", [G, H], ids=["grouped", "full"])
def test_every_kernel_equals_the_definition(backend, mask, bias, heads, same_gradients):
    q, k, v = tensors(heads, M)
    added, trained = bias()
    got = attend(q, k, v, mask=mask, bias=added, backend=backend)
    want = reference(q, k, v, mask=mask, bias=added)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    same_gradients(got, [q, k, v, *trained], want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("backend", "cases"),
    [
        ("sdpa", len(SQUARE) * len(BIASES)),  # takes everything
        ("local", 3 * 3),  # masks of a short reach: two windows, the grid; no bias of pairs
        ("pair_bias", len(SQUARE) * 4),  # where pairs are trained
    ],
)
def test_every_kernel_takes_what_it_can(backend, cases):
    assert [str(case.id).split("-")[0] for case in KERNELS].count(backend) == cases


LEAVING_OUT = {
    "padding": Padding(valid()),
    "causal & lengths": Causal() & Lengths(torch.tensor([M - 4, 0])),
    "window & padding": Window(2, 1) & Padding(valid()),
    "prefix": Prefix(3),
    "table": Dense(torch.rand(B, H, M, M, generator=torch.Generator().manual_seed(5)) < 0.02),
}


@pytest.mark.parametrize(
    ("backend", "mask"),
    [("local", "window & padding"), *product(("sdpa", "pair_bias", "reference"), LEAVING_OUT)],
)
@pytest.mark.parametrize("heads", [G, H], ids=["grouped", "full"])
def test_what_is_masked_for_all_may_be_nan(backend, mask, heads):
    """Outputs and all gradients are what they are without it."""
    mask = LEAVING_OUT[mask]
    q, k, v = tensors(heads, M)
    bias = torch.randn(1, H, M, M, dtype=torch.float64, requires_grad=True) if backend == "pair_bias" else None
    trained = [t for t in (q, k, v, bias) if t is not None]

    def run():
        out = attend(q, k, v, mask=mask, bias=bias, backend=backend)
        return [out, *torch.autograd.grad(out.square().sum(), trained)]

    clean = run()
    left_out = ~mask.dense(B, H, M, M).any(2).any(1)[:, None].expand(B, heads, M)
    assert 0 < left_out.sum() < left_out.numel()
    with torch.no_grad():
        k[left_out], v[left_out] = torch.nan, torch.inf
    for ours, theirs in zip(run(), clean, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mask", [Causal(), Causal() & Padding(valid()), Window(2) | Prefix(2)])
def test_in_the_definition_nan_reaches_those_alone_who_see_it(mask, same_gradients):
    q, k, v = tensors(G, M)
    seen = mask.dense(B, H, M, M).expand(B, H, M, M)[..., 3]  # (B, H, M)
    clean = attend(q, k, v, mask=mask, backend="reference")
    broken = v.detach().index_fill(2, torch.tensor([3]), torch.nan).requires_grad_()
    out = attend(q, k, broken, mask=mask, backend="reference")
    torch.testing.assert_close(out[~seen], clean[~seen])
    assert out[seen].isnan().all()
    assert 0 < seen.sum() < seen.numel()
    same_gradients(out[~seen], (q, k, broken), clean[~seen], (q, k, v))


def test_one_value_by_hand():
    """Scores 0 and ln 3 give weights ¼ and ¾: ¼·8 + ¾·4 = 5."""
    q = torch.tensor([[[[1.0]]]])
    k = torch.tensor([[[[0.0], [torch.tensor(3.0).log().item()]]]])
    v = torch.tensor([[[[8.0], [4.0]]]])
    assert attend(q, k, v).item() == pytest.approx(5.0)
    assert attend(q, k, v, bias=torch.tensor([[[[0.0, -100.0]]]])).item() == pytest.approx(8.0)
    assert probabilities(q, k).flatten().tolist() == pytest.approx([0.25, 0.75])


def test_grouped_heads_share_keys_in_order():
    q, k, v = tensors(G)
    wide = attend(q, k.repeat_interleave(H // G, 1), v.repeat_interleave(H // G, 1))
    torch.testing.assert_close(attend(q, k, v), wide)


def test_leading_dimensions_are_folded():
    q, k, v = (t.detach()[None].expand(3, *t.shape) for t in tensors(H))
    assert attend(q, k, v).shape == (3, B, H, L, D)
    torch.testing.assert_close(attend(q, k, v)[1], attend(q[1], k[1], v[1]))
    torch.testing.assert_close(attend(q[0, 0], k[0, 0], v[0, 0]), attend(q[0], k[0], v[0])[0])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_query_that_sees_nothing_gives_zero_and_finite_gradients(backend):
    q, k, v = tensors()
    seen = valid()
    seen[0] = False
    out = attend(q, k, v, mask=Padding(seen), backend=backend)
    assert out[0].abs().max() == 0
    assert out[1].abs().min() > 0
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert gradient[0].abs().max() == 0


@pytest.mark.parametrize("backend", ["sdpa", "pair_bias", "reference"])
@pytest.mark.parametrize("mask", [NoMask(), Padding(valid())], ids=["everything", "padding"])
def test_a_bias_of_minus_infinity_hides(backend, mask, same_gradients):
    """A row without a key that is left gives 0 and finite gradients, on every kernel, in the loss or not."""
    q, k, v = tensors(H)
    hides = torch.zeros(B, 1, L, M, dtype=torch.bool)
    hides[:, :, 2], hides[0, :, 4, :9], hides[1, :, 1, 3] = True, True, True
    noise = torch.randn(B, 1, L, M, dtype=torch.float64)
    bias = noise.masked_fill(hides, -torch.inf).requires_grad_(backend == "pair_bias")
    inputs = [q, k, v, *([bias] if bias.requires_grad else [])]
    out = attend(q, k, v, mask=mask, bias=bias, backend=backend)
    want = attend(q, k, v, mask=mask & Dense(~hides), bias=noise, backend="reference")
    assert out[:, :, 2].abs().max() == 0
    torch.testing.assert_close(out, want, rtol=1e-10, atol=1e-10)
    same_gradients(out, [q, k, v], want, rtol=1e-9, atol=1e-10)
    for gradient in torch.autograd.grad(out.sum(), inputs):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("constant", [False, True], ids=["varying gradient", "constant gradient"])
def test_a_trained_bias_has_no_second_derivative(constant):
    q, k, v = tensors(H)
    bias = torch.randn(1, H, L, M, dtype=torch.float64, requires_grad=True)
    out = attend(q, k, v, bias=bias)
    (gradient,) = torch.autograd.grad(out.sum() if constant else out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="not differentiable twice; use backend='reference'"):
        gradient.square().sum().backward()


@pytest.mark.parametrize(
    "kinds", [("float32",) * 4, ("float32", "bfloat16", "bfloat16", "float32")], ids=["one", "mixed"]
)
@pytest.mark.parametrize("biased", [False, True])
def test_under_autocast_all_inputs_have_its_dtype(kinds, biased):
    """RMS-normalised queries come in float32 beside values in bfloat16; a trained bias, in float32."""
    dtypes = [getattr(torch, kind) for kind in kinds]
    q, k, v = (t.detach().to(dtype).requires_grad_() for t, dtype in zip(tensors(H), dtypes, strict=False))
    bias = torch.randn(1, H, L, M, requires_grad=True) if biased else None
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, k, v, bias=bias, mask=Padding(valid()))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    for t, dtype in zip((q, k, v), dtypes, strict=False):
        assert t.grad is not None
        assert t.grad.dtype == dtype
    want = reference(
        q.double(), k.double(), v.double(), bias=None if bias is None else bias.double(), mask=Padding(valid())
    )
    torch.testing.assert_close(out.double(), want, rtol=0, atol=0.05)  # 8 bits of mantissa, 11 values of about 3


def test_last_query_stands_beside_last_key():
    q, k, v = tensors()
    whole = attend(torch.cat([q.new_zeros(B, H, M - L, D), q], 2), k, v, mask=Causal())
    torch.testing.assert_close(attend(q, k, v, mask=Causal()), whole[:, :, M - L :])


@pytest.mark.parametrize(
    "kernel", [("auto", {}), ("padding", {"mask": Padding(valid())}), ("causal", {"mask": Causal()})]
)
def test_a_plan_of_flash_is_what_torch_can_run(kernel):
    _, options = kernel
    q, k, v = tensors(dtype=torch.float32)
    assert plan(q, k, v, **options).backend == "sdpa/flash"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where the fused kernel does not apply
        attend(q, k, v, **options).sum().backward()


def test_a_bias_that_is_trained_has_its_own_kernel():
    q, k, v = tensors(dtype=torch.float32)
    bias = torch.randn(1, H, L, M, requires_grad=True)
    chosen = plan(q, k, v, bias=bias)
    assert chosen.backend == "pair_bias"
    assert "gradient" in str(chosen)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # forward and backward stay off torch's slow path
        attend(q, k, v, bias=bias, mask=Padding(valid())).sum().backward()
    assert bias.grad is not None
    by_torch = plan(q, k, v, bias=bias, backend="sdpa")
    assert by_torch.backend == "sdpa/math"
    assert "bias that needs a gradient" in str(by_torch)
    assert plan(q, k, v, bias=bias, device="cuda", backend="sdpa").backend != "sdpa/flash"


def test_a_bias_without_gradient_is_fused():
    q, k, v = tensors(dtype=torch.float32)
    bias = torch.randn(1, H, L, M, requires_grad=True)
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert plan(q, k, v, bias=bias).backend == "sdpa/flash"
        attend(q, k, v, bias=bias, mask=Padding(valid()))


def test_a_short_reach_in_a_long_sequence_is_local():
    q, k, v = tensors(H, 97, 97)
    assert plan(q, k, v, mask=Window(3) & Causal()).backend == "local"
    assert plan(q, k, v, mask=Window(61)).backend == "sdpa/flash"  # the reach is most of the sequence
    assert plan(q, k, v, mask=Window(3) | Prefix(2)).backend == "sdpa/flash"
    assert plan(q[:, :, :5], k, v, mask=Window(3)).backend == "sdpa/flash"
    with pytest.raises(ValueError, match="see any distance"):
        plan(q, k, v, mask=Causal(), backend="local")


@pytest.mark.parametrize(
    ("dtype", "width", "options", "expected"),
    [
        (torch.bfloat16, 64, {}, "sdpa/flash"),
        (torch.bfloat16, 64, {"mask": Causal()}, "sdpa/efficient"),  # fewer queries than keys: no plain causality
        (torch.bfloat16, 64, {"mask": Padding(valid())}, "sdpa/efficient"),
        (torch.bfloat16, 264, {}, "sdpa/efficient"),
        (torch.float32, 64, {}, "sdpa/efficient"),
        (torch.float32, 63, {}, "sdpa/math"),
        (torch.float64, 64, {}, "sdpa/math"),
    ],
)
def test_the_cuda_table_on_tensors_without_storage(dtype, width, options, expected):
    q = torch.empty(B, H, L, width, dtype=dtype, device="meta")
    k = torch.empty(B, H, M, width, dtype=dtype, device="meta")
    assert plan(q, k, k, device="cuda", **options).backend == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_plan_says_what_is_exact(dtype, biased):
    q, k, v = (t.detach().to(dtype) for t in tensors(H))
    bias = torch.randn(1, H, L, M, dtype=dtype) if biased else None
    exact = plan(q, k, v, bias=bias).exact
    assert exact == (dtype in (torch.float64, torch.float32))
    want = reference(q.double(), k.double(), v.double(), bias=bias)
    assert ((attend(q, k, v, bias=bias).double() - want).abs().max() < 2e-6) == exact


def test_a_plan_says_what_is_deterministic():
    """Where a bias gradient of CUDA's efficient kernel is summed up, the order is left to chance."""
    q, k, v = tensors(H, dtype=torch.float32)
    bias = torch.randn(1, H, L, M, requires_grad=True)
    assert plan(q, k, v, bias=bias).deterministic
    q, k, v, bias = (t.to("meta") for t in (q[..., :4], k[..., :4], v[..., :4], bias))
    by_torch = plan(q, k, v, bias=bias, grad=True, device="cuda", backend="sdpa")
    assert by_torch.backend == "sdpa/efficient"
    assert not by_torch.deterministic
    assert plan(q, k, v, bias=bias, grad=False, device="cuda", backend="sdpa").deterministic


@pytest.mark.plain
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: attend(q[..., :3], k, v), "attend needs q"),
        (lambda q, k, v: attend(q, k[:, :, 1:], v), "attend needs q"),
        (lambda q, k, v: attend(q[:, :5], k, v), "5 query heads must be a multiple of the 3"),
        (lambda q, k, v: attend(q[0, 0], k, v), "heads, length, width"),
        (lambda q, k, v: attend(q.float(), k, v), "one dtype, got torch.float32, torch.float64"),
        (lambda q, k, v: attend(q, k, v, bias=torch.ones(1, H, L, M, dtype=torch.bool)), "bool hides"),
        (lambda q, k, v: attend(q, k, v, bias=torch.zeros(1, H, L, L)), "does not broadcast"),
        (lambda q, k, v: attend(q, k, v, backend="fast"), "possible: auto, sdpa, local"),
        (lambda q, k, v: attend(q, k, v, mask=Padding(torch.ones(B, 3, dtype=torch.bool))), "met attention over"),
        (lambda q, k, v: Padding(torch.ones(B, M)), "of bool"),
        (lambda q, k, v: Window(-1), "left >= 0"),
        (lambda q, k, v: attend(q, k, v, mask=Window(2), backend="local"), "takes no cache"),
        (lambda q, k, v: attend(q, k, v, bias=LowRankBias(q, k)), "does not broadcast"),
        (lambda q, k, v: LowRankBias(q, k[..., :2]), "LowRankBias needs"),
        (lambda q, k, v: attend(q, k, v, mask=Lengths(torch.ones(3).long())), "made for"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        change(*tensors())
