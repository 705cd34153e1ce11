"""FlexAttention: torch compiles the mask's own predicate into a kernel that skips whole blocks of keys.

On CUDA the kernel is fused, forward and backward. On a CPU torch has the forward pass alone; here it then runs as plain
operations, without a compiler, to be checked against the definition.

Source: Dong et al. 2024.

Shapes: B batch · H query heads · G key/value heads · L queries · M keys · D head width
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

from core.kernels.sdpa import fully_masked_keys
from core.masks import Mask, NoMask


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None, scale: float) -> Tensor:
    """Args: q (B,H,L,D), k and v (B,G,M,D), bias (B|1,H|1,L|1,M|1) without gradient or None. Returns: (B,H,L,D)."""
    from torch.nn.attention.flex_attention import flex_attention  # here: it takes half a second, and few ask for it

    (B, H, L, _), M = q.shape, k.shape[-2]
    traced = torch.compiler.is_compiling()  # then the caches are not looked into
    blocks = None
    if not isinstance(mask, NoMask):
        blocks, hidden = (make_blocks if traced else known_blocks)(mask, B, H, L, M, q.device)
        k, v = k.masked_fill(hidden, 0.0), v.masked_fill(hidden, 0.0)
    if q.device.type == "cpu":  # the plan knows that no gradient is wanted; torch refuses what could have one
        q, k, v = q.detach(), k.detach(), v.detach()
    attention = flex_attention if traced else compiled(q.device.type)
    added = None if bias is None else score_mod(bias.detach())
    return attention(q, k, v, score_mod=added, block_mask=blocks, scale=scale, enable_gqa=k.shape[1] != H)


def score_mod(bias: Tensor):
    """A bias (B|1, H|1, L|1, M|1) as what FlexAttention asks of each score."""

    def added(score, *at):
        return score + bias[tuple(n if size > 1 else n * 0 for n, size in zip(at, bias.shape, strict=True))]

    return added


def make_blocks(mask: Mask, B: int, H: int, L: int, M: int, device: torch.device):
    """The mask by blocks, and the keys that no query sees, (B|1, 1, M, 1)."""
    from torch.nn.attention.flex_attention import create_block_mask

    allowed = mask.dense(B, H, L, M, device)  # (B|1, H|1, L|1, M)
    sizes = (len(allowed), allowed.shape[1], L, M)
    return create_block_mask(lambda b, h, i, j: mask.allows(b, h, i + M - L, j), *sizes, device), fully_masked_keys(
        allowed
    )


@lru_cache(maxsize=8)
def known_blocks(mask: Mask, B: int, H: int, L: int, M: int, device: torch.device):
    """The same, remembered: all layers use one mask, and its blocks take as long as attention over a short sequence."""
    with torch.inference_mode(False):  # what validation has made, training may need
        return make_blocks(mask, B, H, L, M, device)


@cache
def compiled(device: str):
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, backend="eager" if device == "cpu" else "inductor")
