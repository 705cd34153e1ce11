"""`attend` against its definition. All sizes are different primes, so that a swapped axis fails."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.attention import attend, probabilities, reference
from core.masks import Causal, Everything, Padding, Window
from core.planner import plan

B, H, G, L, M, D = 2, 6, 3, 5, 11, 7


def tensors(heads=G, queries=L, keys=M, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = ((B, H, queries, D), (B, heads, keys, D), (B, heads, keys, D))
    return [torch.randn(shape, generator=rng, dtype=dtype, requires_grad=True) for shape in shapes]


def valid(keys=M):
    lengths = torch.tensor([keys - 2, keys - 6])
    return torch.arange(keys) < lengths[:, None]  # (B, M)


MASKS = {
    "everything": Everything(),
    "causal": Causal(),
    "window": Window(3, 1),
    "padding": Padding(valid()),
    "causal & padding": Causal() & Padding(valid()),
    "window & padding & causal": Window(2, 2) & Padding(valid()) & Causal(),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("heads", [G, H, 1], ids=["grouped", "full", "single"])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("queries", [L, M], ids=["fewer queries", "square"])
def test_outputs_and_all_gradients_equal_the_definition(mask, heads, with_bias, queries):
    q, k, v = tensors(heads, queries)
    inputs = [q, k, v]
    bias = None
    if with_bias:
        bias = torch.randn(1, H, queries, M, dtype=torch.float64, requires_grad=True)
        inputs.append(bias)
    weights = torch.randn(B, H, queries, D, dtype=torch.float64)
    fused = attend(q, k, v, mask=mask, bias=bias)
    defined = reference(q, k, v, mask=mask, bias=bias)
    torch.testing.assert_close(fused, defined, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad((fused * weights).sum(), inputs),
        torch.autograd.grad((defined * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


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


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("bias that needs a gradient", {"bias": torch.zeros(1, H, L, M, requires_grad=True)}),
        ("attention dropout", {"dropout": 0.5}),
    ],
)
def test_a_plan_of_math_says_why_and_torch_agrees(reason, options):
    q, k, v = tensors(dtype=torch.float32)
    chosen = plan(q, k, v, **options)
    assert chosen.backend == "sdpa/math"
    assert reason in str(chosen)
    assert chosen.bytes > 0
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(RuntimeError, match="No available kernel"):
        attend(q, k, v, **options)
    with pytest.raises(ValueError, match=reason):
        attend(q, k, v, strict=True, **options)


def test_a_bias_without_gradient_is_fused():
    q, k, v = tensors(dtype=torch.float32)
    bias = torch.randn(1, H, L, M, requires_grad=True)
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert plan(q, k, v, bias=bias).backend == "sdpa/flash"
        attend(q, k, v, bias=bias, mask=Padding(valid()))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: attend(q[..., :3], k, v), "attend needs q"),
        (lambda q, k, v: attend(q, k[:, :, 1:], v), "attend needs q"),
        (lambda q, k, v: attend(q[:, :5], k, v), "5 query heads must be a multiple of the 3"),
        (lambda q, k, v: attend(q[0, 0], k, v), "heads, length, width"),
        (lambda q, k, v: attend(q, k, v, bias=torch.zeros(1, H, L, L)), "does not broadcast"),
        (lambda q, k, v: attend(q, k, v, backend="fast"), "possible: auto, sdpa, reference"),
        (lambda q, k, v: attend(q, k, v, mask=Padding(torch.ones(B, 3, dtype=torch.bool))), "met attention over"),
        (lambda q, k, v: Padding(torch.ones(B, M)), "of bool"),
        (lambda q, k, v: Window(-1), "left >= 0"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        change(*tensors())
