"""torch's fused scaled-dot-product attention, taught this project's masks.

Shapes: B batch · H query heads · G key/value heads · L queries · M keys · D head width
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.masks import Causal, Everything, Mask

# cuDNN is left out on purpose: it has had silent NaN gradients under a mask.
CUDA_ORDER = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None, scale: float, dropout: float) -> Tensor:
    """Args: q (B,H,L,D), k and v (B,G,M,D), bias broadcastable to (B,H,L,M) or None. Returns: (B,H,L,D)."""
    (B, H, L, _), M = q.shape, k.shape[-2]
    causal = isinstance(mask, Causal) and L == M and bias is None  # torch's is_causal counts from the top left
    everything = isinstance(mask, Everything) or (isinstance(mask, Causal) and L == 1)
    attn_mask, blind = bias, None
    if not (causal or everything):
        allowed = mask.dense(B, H, L, M, q.device)  # (B|1, H|1, L|1, M)
        blind = ~allowed.any(-1, keepdim=True)  # queries that may see nothing: give 0, not NaN, on every kernel
        allowed = allowed | blind
        attn_mask = allowed if bias is None else bias.masked_fill(~allowed, float("-inf"))
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.to(q.dtype)
    order = sdpa_kernel(CUDA_ORDER, set_priority=True) if q.is_cuda else nullcontext()
    with order:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=k.shape[-3] != H
        )  # (B, H, L, D)
    return out if blind is None else out.masked_fill(blind, 0.0)
