"""Attention under a trained bias in memory that does not grow with the number of attention maps.

torch's fused kernels give no gradient of a bias on a CPU, and on CUDA write it out for every batch entry before they
sum it: in triangle attention, N³ numbers. Here the forward pass is fused, and the backward pass recomputes the maps a
few batch entries at a time, adding each chunk's part to the bias gradient. Public operations alone, on any device.

    S = scale · q kᵀ + bias,  P = softmax S,  dS = P ⊙ (dO vᵀ - rowsum(dO ⊙ O))
    dq = scale · dS k,  dk = scale · dSᵀ q,  dv = Pᵀ dO,  dbias = Σ dS over the dimensions that bias broadcasts

Source: Dao et al. 2022, appendix B, for the backward pass.

Shapes: B batch · H heads · L queries · M keys · D head width
"""

import torch
from torch import Tensor

from core.kernels.sdpa import fully_masked_keys, fused

CHUNK = 2**20  # scores recomputed at once: 4 MB in float32, which stay in the cache


def pair_bias(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, bias: Tensor, scale: float) -> Tensor:
    """Args: q (B,H,L,D), k and v (B,H,M,D), allowed (B|1,H|1,L|1,M) of bool or None, bias (B|1,H|1,L|1,M|1).

    Returns: (B,H,L,D). Gradients of q, k, v and bias; not differentiable twice.
    """
    out: Tensor = _PairBias.apply(q, k, v, allowed, bias, scale)  # pyright: ignore[reportAssignmentType]
    return out


class _PairBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, allowed, bias, scale):
        # In parts, too: torch's kernel lays out a bias that it broadcasts once for every batch entry.
        parts = []
        for rows in _chunks(q, k):
            seen = None if allowed is None else _rows(allowed, rows)
            parts.append(fused(q[rows], k[rows], v[rows], seen, scale, _rows(bias, rows)))
        out = torch.cat(parts)  # (B, H, L, D)
        ctx.save_for_backward(q, k, v, allowed, bias, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        dq, dk, dv, dbias = _Gradients.apply(grad, *ctx.saved_tensors, ctx.scale)  # pyright: ignore
        return dq, dk, dv, None, dbias, None


class _Gradients(torch.autograd.Function):
    """The backward pass as a function of its own, so that its derivative is an error: without one it would be taken
    for a constant wherever the incoming gradient is one."""

    @staticmethod
    def forward(ctx, grad, q, k, v, allowed, bias, out, scale):
        dq, dk, dv, dbias = (torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), torch.zeros_like(bias))
        for rows in _chunks(q, k):
            here, keys, values = _rows(bias, rows), k[rows], v[rows]
            gone = here.isneginf()  # (b|1, H|1, L|1, M|1); what a bias hides, and a mask
            scores = torch.matmul(q[rows] * scale, keys.mT).add_(here)  # (b, H, L, M)
            if allowed is not None:
                hidden = ~_rows(allowed, rows)
                nowhere, gone = fully_masked_keys(~hidden), gone | hidden
                keys, values = keys.masked_fill(nowhere, 0.0), values.masked_fill(nowhere, 0.0)
                scores.masked_fill_(hidden, -torch.inf)
            P = scores.softmax(-1).masked_fill_(gone, 0.0)  # NaN in a row that sees nothing
            dv[rows] = P.mT @ grad[rows]
            inner = (grad[rows] * out[rows]).sum(-1, keepdim=True)  # (b, H, L, 1)
            dS = (grad[rows] @ values.mT).sub_(inner).mul_(P)  # (b, H, L, M)
            dq[rows] = (dS @ keys).mul_(scale)
            dk[rows] = (dS.mT @ q[rows]).mul_(scale)
            _rows(dbias, rows).add_(dS.sum_to_size(here.shape))
        return dq, dk, dv, dbias

    @staticmethod
    def backward(ctx, *grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("attention under a trained bias is not differentiable twice; use backend='reference'")


def _chunks(q: Tensor, k: Tensor) -> list[slice]:
    """Batch entries, as many at a time as CHUNK scores allow."""
    step = max(1, CHUNK // (q.shape[1] * q.shape[2] * k.shape[2]))
    return [slice(start, start + step) for start in range(0, max(1, q.shape[0]), step)]


def _rows(t: Tensor, rows: slice) -> Tensor:
    """The part of a tensor that belongs to these batch entries: all of it, if they share it."""
    return t if len(t) == 1 else t[rows]
