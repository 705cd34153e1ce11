"""Block-local attention: a query that sees only its neighbourhood is not compared with the rest.

The sequence is cut into blocks of queries; each is attended with the keys within its reach alone, by torch's fused
kernel. Time and memory grow with L · (block + reach), not with L². It runs on any device, forward and backward.

Shapes: B batch · H query heads · G key/value heads · L queries and keys · D head width ·
N blocks · c queries a block · w = left + c + right keys within a block's reach
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from core.kernels.sdpa import fused
from core.masks import Mask


def local(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
    """Args: q (B,H,L,D), k and v (B,G,L,D), and a mask of finite reach. Returns: (B,H,L,D)."""
    B, H, L, _ = q.shape
    left, right = (int(side) for side in mask.extent())
    c = block_size(left, right)
    N = -(-L // c)
    past = N * c - L
    q = F.pad(q, (0, 0, 0, past)).unflatten(2, (N, c))  # (B, H, N, c, D)
    k, v = (F.pad(t, (0, 0, left, past + right)).unfold(2, left + c + right, c).mT for t in (k, v))  # (B, G, N, w, D)
    allowed = block_masks(mask, B, H, L, N, c, left, right, q.device)  # (B|1, N, H|1, c, w)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, N, H, c, D), (B, N, G, w, D)
    if len(allowed) == 1 < B:
        allowed = allowed.expand(B, *allowed.shape[1:])
    q, k, v, allowed = (t.flatten(0, 1) for t in (q, k, v, allowed))  # (BN, …)
    out = fused(q, k, v, allowed, scale)  # (BN, H, c, D)
    return out.unflatten(0, (B, N)).transpose(1, 2).flatten(2, 3)[:, :, :L]


def block_size(left: int, right: int) -> int:
    """Queries a block: a little less than the reach, so that blocks overlap little and are not many."""
    return max(16, (left + right) // 2)


def block_masks(mask, B, H, L, N, c, left, right, device) -> Tensor:
    """The mask of each block of queries over the keys in its reach, (B|1, N, H|1, c, w)."""
    mask.check(B, L, L)
    b = torch.arange(B, device=device).view(-1, 1, 1, 1, 1)
    h = torch.arange(H, device=device).view(1, 1, -1, 1, 1)
    start = torch.arange(N, device=device).view(1, -1, 1, 1, 1) * c
    i = start + torch.arange(c, device=device).view(-1, 1)  # (1, N, 1, c, 1)
    j = start - left + torch.arange(left + c + right, device=device)  # (1, N, 1, 1, w)
    inside = (i < L) & (j >= 0) & (j < L)
    return mask.allows(b, h, i.clamp(max=L - 1), j.clamp(0, L - 1)) & inside
