"""The one attention operation of this project, and its definition.

Shapes: B batch · H query heads · G key/value heads · L queries · M keys · D, E head width of queries and
keys, of values; * any leading dimensions
"""

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from core.bias import Bias, PairBias, absorb_low_rank_bias
from core.kernels.flex import flex
from core.kernels.local import local
from core.kernels.pair_bias import pair_bias
from core.kernels.sdpa import dense_mask, sdpa
from core.masks import Mask, NoMask
from core.planner import choose, describe


def attend(
    q: Float[Tensor, "*batch H L D"],
    k: Float[Tensor, "*batch G M D"],
    v: Float[Tensor, "*batch G M E"],
    *,
    mask: Mask = NoMask(),
    bias: Bias | Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    strict: bool = False,
) -> Float[Tensor, "*batch H L E"]:
    """Compute attention: the one attention operation of this project.

        out = softmax(scale · q kᵀ + bias) v             over the visible keys; 0 where there are none

    A key that the mask shows to no query, such as padding, may hold NaN: neither outputs nor gradients read it. A key
    that it hides from some queries only must be finite: fused kernels multiply it by 0, and 0 · NaN is NaN.
    (backend="reference" keeps it from those that do not see it.)

    A bias of -inf hides, as a mask does: a query whose keys are all hidden gives 0 and finite gradients. A large finite
    number hides nothing in a row that has no other: with torch.finfo(dtype).min in all of it, scores are lost in
    rounding, the output is near the mean of the values, and gradients of fused kernels are wrong. Write -inf.

    Under autocast, all inputs but float64 are brought to autocast's dtype, as torch does, before a kernel is planned.

    Source: Vaswani et al. 2017, eq. 1; grouped key/value heads: Ainslie et al. 2023.

    Args:
        q: queries.
        k, v: keys and values, H a multiple of G; query head h reads key/value head h // (H / G).
        bias: added to the scores in the dtype of q; broadcasts to (B, H, L, M), with leading dimensions in one.
        scale: 1 / √D if None.
        backend: "auto", or the name of a kernel; `core.planner.plan` says what "auto" will do. "flex" compiles the mask
            into a kernel of its own, and has no gradient on a CPU.
        strict: refuse to run without a fused kernel.
    Raises:
        ValueError: if shapes or dtypes do not fit together, for an unknown backend, or under `strict`.
    """
    bias = PairBias(bias) if isinstance(bias, Tensor) else bias
    q, k, v = autocast(q, k, v)
    check(q, k, v)
    if q.dim() != 4:
        out = attend(*map(flatten_batch, (q, k, v)), mask=mask, bias=bias, scale=scale, backend=backend, strict=strict)
        return out.reshape(*q.shape[:-1], v.shape[-1])
    if bias is not None:
        check_bias(bias, (*q.shape[:-1], k.shape[-2]))
    mask, width = mask.simplify(q.shape[-2], k.shape[-2]), v.shape[-1]
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    remembered = choose.__wrapped__ if torch.compiler.is_compiling() else choose  # a compiler keeps its own
    chosen, _ = remembered(describe(q, k, v, mask, bias), backend, strict)
    if chosen == "reference":
        return reference(q, k, v, mask=mask, bias=bias, scale=factor)
    q, k, v, dense, factor = absorb_low_rank_bias(q, k, v, bias, factor)
    if chosen == "local":
        out = local(q, k, v, mask, factor)
    elif chosen == "pair_bias":
        assert dense is not None
        allowed = None if isinstance(mask, NoMask) else dense_mask(mask, q, k)
        out = pair_bias(q, repeat_kv(k, q.shape[1]), repeat_kv(v, q.shape[1]), allowed, dense, factor)
    elif chosen == "flex":
        out = flex(q, k, v, mask, dense, factor)
    else:
        out = sdpa(q, k, v, mask, dense, factor)
    return out if out.shape[-1] == width else out[..., :width]


def reference(
    q: Float[Tensor, "B H L D"],
    k: Float[Tensor, "B G M D"],
    v: Float[Tensor, "B G M E"],
    *,
    mask: Mask = NoMask(),
    bias: Bias | Tensor | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H L E"]:
    """The definition of `attend` in any dtype. Every kernel is tested against it.

    A key with a number that is not finite makes NaN of the queries that see it, and does nothing to the others.
    """
    k, v = repeat_kv(k, q.shape[1]), repeat_kv(v, q.shape[1])
    broken = ~(k.isfinite().all(-1) & v.isfinite().all(-1))  # (B, H, M)
    k, v = k.masked_fill(broken[..., None], 0.0), v.masked_fill(broken[..., None], 0.0)  # for 0 · NaN is NaN
    out = probabilities(q, k, mask=mask, bias=bias, scale=scale) @ v  # (B, H, L, D)
    allowed = mask.dense(q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.device)
    nonfinite = (allowed & broken[..., None, :]).any(-1, keepdim=True)  # (B, H, L, 1)
    return out.masked_fill(nonfinite, torch.nan)


def probabilities(
    q: Float[Tensor, "B H L D"],
    k: Float[Tensor, "B G M D"],
    *,
    mask: Mask = NoMask(),
    bias: Bias | Tensor | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H L M"]:
    """The attention weights: rows sum to 1, or are 0 where a query may see nothing."""
    (B, H, L, D), M = q.shape, k.shape[-2]
    scores = (q @ repeat_kv(k, H).mT) * (D**-0.5 if scale is None else scale)
    hidden = ~mask.dense(B, H, L, M, q.device)
    if bias is not None:
        added = (bias.dense() if isinstance(bias, Bias) else bias).to(scores.dtype)
        scores, hidden = scores + added, hidden | added.isneginf()
    lowest = torch.finfo(scores.dtype).min  # finite, so that a row that sees nothing has finite gradients
    return scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)


def flatten_batch(t: Tensor) -> Tensor:
    """(*, H, L, D) -> (B, H, L, D), B the product of the leading dimensions."""
    return t.reshape(prod(t.shape[:-3]), *t.shape[-3:])


def repeat_kv(t: Tensor, heads: int) -> Tensor:
    """(B, G, M, D) -> (B, H, M, D): each key/value head serves H / G query heads."""
    return t if t.shape[-3] == heads else t.repeat_interleave(heads // t.shape[-3], dim=-3)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype, where it is on; float64 stays, as it does in torch's own operations."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def check(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError if the shapes or the dtypes do not fit together."""
    same = q.shape[:-3] == k.shape[:-3] == v.shape[:-3] and k.shape[:-1] == v.shape[:-1] and q.shape[-1] == k.shape[-1]
    if not same or min(q.dim(), k.dim(), v.dim()) < 3:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"attend needs q (*, heads, length, width) and k, v (*, kv_heads, keys, width), got {shapes}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"attend needs q, k and v of one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(f"the {q.shape[-3]} query heads must be a multiple of the {k.shape[-3]} key/value heads")


def check_bias(bias: Bias, whole: tuple[int, ...]) -> None:
    """Raises ValueError if the bias does not broadcast to `whole`, (B, H, L, M)."""
    B, H, L, M = whole
    for part in bias.parts:
        if isinstance(part, PairBias):
            sizes = [(part.values.shape, whole)]
        else:
            R = part.u.shape[-1]
            sizes = [(part.u.shape, (B, H, L, R)), (part.w.shape, (B, H, M, R))]
        for have, want in sizes:
            if any(n not in (1, size) for n, size in zip(have, want, strict=True)):
                raise ValueError(f"bias {tuple(have)} does not broadcast to {want}, as (B, H, L, M) = {whole} asks")
