"""torch's fused scaled-dot-product attention, under this project's masks and biases.

Shapes: B batch · H query heads · G key/value heads · L queries · M keys · D head width
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.masks import Causal, Mask, NoMask

# cuDNN is left out on purpose: it has had silent NaN gradients under a mask.
CUDA_ORDER = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None, scale: float) -> Tensor:
    """Args: q (B,H,L,D), k and v (B,G,M,D), bias broadcastable to (B,H,L,M) or None. Returns: (B,H,L,D)."""
    L, M = q.shape[-2], k.shape[-2]
    if bias is None and plain(mask, L, M):
        causal = isinstance(mask, Causal) and bool(L > 1)  # torch counts from the top left, which is right if L = M
        return _torch(q, k, v, None, scale, causal)
    if isinstance(mask, NoMask):
        return _torch(q, k, v, bias, scale)
    allowed = dense_mask(mask, q, k)  # (B|1, H|1, L|1, M)
    if mask.sees_itself() and (L == M or (L < M and mask.last_sees_all())):
        return _torch(q, k, v, allowed if bias is None else _hidden(bias, allowed), scale)
    return fused(q, k, v, allowed, scale, bias)


def fused(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scale: float, bias: Tensor | None = None) -> Tensor:
    """Attention under a dense mask, allowed (B|1, H|1, L|1, M).

    On every kernel a query that may see nothing gives 0, and a key that no query may see is not read, be it NaN.
    """
    if allowed is None:
        return _torch(q, k, v, bias, scale)
    hidden = fully_masked_keys(allowed)
    k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
    fully_masked_queries = ~allowed.any(-1, keepdim=True)  # these see everything instead, and their output is dropped
    attn_mask = allowed | fully_masked_queries
    if bias is not None:
        attn_mask = _hidden(bias, attn_mask)
    return _torch(q, k, v, attn_mask, scale).masked_fill(fully_masked_queries, 0.0)


def dense_mask(mask: Mask, q: Tensor, k: Tensor) -> Tensor:
    """The mask as a tensor (B|1, H|1, L|1, M), made once for all blocks if the mask is `remembering`."""
    shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2], q.device)
    if "known" not in mask.__dict__:
        return mask.dense(*shape)
    known = mask.__dict__["known"]
    if known is None or known[0] != shape:
        with torch.inference_mode(False):
            known = mask.__dict__["known"] = shape, mask.dense(*shape)
    return known[1]


def _hidden(bias: Tensor, allowed: Tensor) -> Tensor:
    return bias.masked_fill(~allowed, float("-inf"))


def fully_masked_keys(allowed: Tensor) -> Tensor:
    """The keys that no query may see, (B|1, 1, M, 1), of allowed (B|1, H|1, L|1, M)."""
    return ~allowed.any(2).any(1)[:, None, :, None]


def plain(mask: Mask, queries: int, keys: int) -> bool:
    """Return whether torch's kernels take the mask without a tensor for it."""
    return isinstance(mask, NoMask) or (isinstance(mask, Causal) and queries in (1, keys))


def _torch(q, k, v, attn_mask: Tensor | None, scale: float, causal: bool = False) -> Tensor:
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.to(q.dtype)
    with sdpa_kernel(CUDA_ORDER, set_priority=True) if q.is_cuda else nullcontext():
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=attn_mask,
            is_causal=causal,
            scale=scale,
            enable_gqa=q.shape[-3] != k.shape[-3],
        )
