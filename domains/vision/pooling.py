"""Attention pooling of patches to one vector.

Shapes: B batch · L patches · C width · H heads · D head width
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.attention import attend
from core.config import TransformerConfig
from core.layers import FeedForward, make_norm


class AttentionPool(nn.Module):
    """One learned query attends to all patches: y = out(attend(q, k, v)), then y + feed-forward(norm y).

    Source: Zhai et al. 2022, "Scaling vision transformers", appendix; timm's AttentionPoolLatent.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        c, self.num_heads = config, config.num_heads
        self.query = nn.Parameter(torch.randn(1, c.dim) * c.dim**-0.5)
        self.q, self.kv, self.out = nn.Linear(c.dim, c.dim), nn.Linear(c.dim, 2 * c.dim), nn.Linear(c.dim, c.dim)
        self.norm = make_norm(c)
        self.feed_forward = FeedForward(c.dim, round(c.dim * c.mlp_ratio))

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B C"]:
        q = self.q(self.query).expand(len(x), 1, -1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, 1, D)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D) each
        y = self.out(attend(q, k, v).flatten(1))  # (B, C)
        return y + self.feed_forward(self.norm(y))
