"""Position encodings that are added to the attention scores.

Shapes: B batch · H heads · L queries · M keys
"""

from math import log

import torch
from torch import Tensor, nn

from core.bias import LowRankBias, PairBias
from core.positions.base import Position, as_tensor


class ALiBi(Position):
    """Scores fall with the distance, at a slope of its own for each head: -slope · (i - j). For causal attention.

    Softmax does not see what all keys of a query share, so slope · j is enough, and that has rank 1: it becomes
    features of queries and keys, and every kernel takes it. A half-precision j would be rounded; its two halves,
    j = 256 · hi + lo, are not.

    Source: Press et al. 2022. Slopes are 2^(-8h / H) for heads h = 1 … H.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.slopes: Tensor
        self.register_buffer("slopes", 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads), persistent=False)

    def bias(self, positions, key_positions):
        key = as_tensor(key_positions)[..., 0]
        key = key - key[..., :1]  # distances alone count: small numbers are exact
        lo = key % 256
        w = torch.stack([key - lo, lo], -1).float()  # (*, M, 2)
        w = w[None, None] if w.dim() == 2 else w[:, None]  # (B|1, 1, M, 2)
        u = self.slopes[:, None, None].expand(1, -1, as_tensor(positions).shape[-2], 2)  # (1, H, L, 2)
        return LowRankBias(u, w)


class Relative(Position):
    """One trained number for each head and each bucket of distances: near ones alone, far ones together.

    Source: T5 (Raffel et al. 2020, section 2.1), its bidirectional buckets.

    Args:
        num_heads: H.
        buckets: half of them for keys before the query, half for keys after it.
        farthest: distances from here on share the last bucket.
    """

    def __init__(self, num_heads: int, buckets: int = 32, farthest: int = 128):
        super().__init__()
        self.buckets, self.farthest = buckets, farthest
        self.table = nn.Parameter(torch.zeros(buckets, num_heads))

    def bias(self, positions, key_positions):
        query, key = as_tensor(positions), as_tensor(key_positions)
        distance = key[..., None, :, 0] - query[..., :, None, 0]  # (*, L, M), j - i
        values = self.table[self.bucket(distance)]  # (*, L, M, H)
        values = values.movedim(-1, -3)  # (*, H, L, M)
        return PairBias(values if values.dim() == 4 else values[None])

    def bucket(self, distance: Tensor) -> Tensor:
        half = self.buckets // 2
        exact = half // 2
        size = distance.abs()
        far = exact + (size.clamp(min=1) / exact).log() / log(self.farthest / exact) * (half - exact)
        return torch.where(size < exact, size, far.long().clamp(max=half - 1)) + half * (distance > 0)
