"""The one attention operation of this project, and its definition.

Shapes: B batch · H query heads · G key/value heads · L queries · M keys · D head width; * any leading dimensions
"""

import torch
from torch import Tensor

from core.kernels.sdpa import sdpa
from core.masks import Everything, Mask
from core.planner import plan


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = Everything(),
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    strict: bool = False,
) -> Tensor:
    """Every query gathers the values of the keys that its mask lets it see.

        out = softmax(scale · q kᵀ + bias) v             over the visible keys; 0 where there are none

    Source: Vaswani et al. 2017, eq. 1; grouped key/value heads: Ainslie et al. 2023.

    Args:
        q: (*, H, L, D).
        k, v: (*, G, M, D), H a multiple of G; query head h reads key/value head h // (H / G).
        bias: added to the scores, broadcastable to (B, H, L, M) with B the product of the leading dimensions.
        scale: 1 / √D if None.
        dropout: probability of dropping an attention weight. No fused kernel on a CPU has it.
        backend: "auto", "sdpa" or "reference"; `core.planner.plan` says what "auto" will do.
        strict: refuse to run without a fused kernel.
    Returns:
        (*, H, L, D).
    Raises:
        ValueError: if shapes do not fit together, for an unknown backend, or under `strict`.
    """
    _check(q, k, v, bias)
    shape = (*q.shape[:-1], v.shape[-1])
    q, k, v = _fold(q), _fold(k), _fold(v)  # (B, H, L, D), (B, G, M, D), (B, G, M, D)
    chosen = plan(q, k, v, mask=mask, bias=bias, dropout=dropout, backend=backend, strict=strict)
    factor = float(q.shape[-1] ** -0.5) if scale is None else scale
    if chosen.backend == "reference":
        if dropout:
            raise ValueError("the reference has no dropout; use backend='auto'")
        out = reference(q, k, v, mask=mask, bias=bias, scale=factor)
    else:
        out = sdpa(q, k, v, mask, bias, factor, dropout)
    return out.reshape(shape)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = Everything(),
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The definition of `attend` in any dtype, for (B, H, L, D) inputs. Every kernel is tested against it."""
    return probabilities(q, k, mask=mask, bias=bias, scale=scale) @ _share(v, q.shape[-3])


def probabilities(
    q: Tensor, k: Tensor, *, mask: Mask = Everything(), bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The attention weights, (B, H, L, M): rows sum to 1, or are 0 where a query may see nothing."""
    (B, H, L, D), M = q.shape, k.shape[-2]
    scores = (q @ _share(k, H).mT) * (D**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    hidden = ~mask.dense(B, H, L, M, q.device)
    lowest = torch.finfo(scores.dtype).min  # finite, so that a row that sees nothing has finite gradients
    return scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)


def _fold(t: Tensor) -> Tensor:
    """(*, H, L, D) -> (B, H, L, D), B the product of the leading dimensions."""
    return t.reshape(t.shape[:-3].numel(), *t.shape[-3:])


def _share(t: Tensor, heads: int) -> Tensor:
    """(B, G, M, D) -> (B, H, M, D): each key/value head serves H / G query heads."""
    return t if t.shape[-3] == heads else t.repeat_interleave(heads // t.shape[-3], dim=-3)


def _check(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if min(q.dim(), k.dim(), v.dim()) < 3:
        raise ValueError(f"attend needs (*, heads, length, width), got {shapes}")
    if not (
        q.shape[:-3] == k.shape[:-3] == v.shape[:-3] and k.shape[:-1] == v.shape[:-1] and q.shape[-1] == k.shape[-1]
    ):
        raise ValueError(f"attend needs q (*, H, L, D) and k, v (*, G, M, D), got {shapes}")
    if q.shape[-3] % k.shape[-3]:
        raise ValueError(f"the {q.shape[-3]} query heads must be a multiple of the {k.shape[-3]} key/value heads")
    if bias is not None:
        whole = (q.shape[:-3].numel(), *q.shape[-3:-1], k.shape[-2])
        if bias.dim() != 4 or any(have not in (1, want) for have, want in zip(bias.shape, whole, strict=True)):
            raise ValueError(f"bias {tuple(bias.shape)} does not broadcast to (B, H, L, M) = {whole}")
