"""The two ends of a ViT that can be chosen: how pixels become patches, and how patches become one vector.

Shapes: B batch · L patches · C width · H heads · D head width
"""

from math import log2

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.attention import attend
from core.config import TransformerConfig
from core.layers import FeedForward, make_norm


def conv_stem(channels: int, dim: int, patch_size: int) -> nn.Sequential:
    """A 3×3 convolution at full resolution, one of stride 2 for each halving of the side, and a linear map.

    Source: Xiao et al. 2021, "Early convolutions help transformers see better"; with group norm, which keeps no
    statistics of training.

    Raises:
        ValueError: if the patch is no power of 2, or the width cannot be halved so often.
    """
    halvings = round(log2(patch_size)) if patch_size > 0 else -1
    if 2 ** max(halvings, 0) != patch_size or dim % 2 ** max(halvings, 0):
        raise ValueError(
            f"model.stem=conv needs a patch of 1, 2, 4, 8 … pixels that divides model.dim, got {patch_size}"
        )
    widths = [dim >> (halvings - n) for n in range(halvings + 1)]
    layers = []
    for n, (into, out) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
        layers += [nn.Conv2d(into, out, 3, stride=2 if n else 1, padding=1), nn.GroupNorm(1, out), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))


class AttentionPool(nn.Module):
    """One learned query gathers all patches: y = out(attend(q, k, v)), then y + feed-forward(norm y).

    Source: Zhai et al. 2022, "Scaling vision transformers", appendix; timm's AttentionPoolLatent.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        c, self.heads = config, config.heads
        self.query = nn.Parameter(torch.randn(1, c.dim) * c.dim**-0.5)
        self.q, self.kv, self.out = nn.Linear(c.dim, c.dim), nn.Linear(c.dim, 2 * c.dim), nn.Linear(c.dim, c.dim)
        self.norm = make_norm(c)
        self.feed_forward = FeedForward(c.dim, round(c.dim * c.mlp_ratio))

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B C"]:
        q = self.q(self.query).expand(len(x), 1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, 1, D)
        k, v = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, D) each
        y = self.out(attend(q, k, v).flatten(1))  # (B, C)
        return y + self.feed_forward(self.norm(y))
