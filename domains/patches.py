"""Patch embeddings, for every domain with images."""

from math import log2

from torch import nn


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
            f"a convolutional stem needs a model.patch_size of 1, 2, 4, 8 … that divides model.dim, got {patch_size}"
        )
    widths = [dim >> (halvings - n) for n in range(halvings + 1)]
    layers = []
    for n, (into, out) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
        layers += [nn.Conv2d(into, out, 3, stride=2 if n else 1, padding=1), nn.GroupNorm(1, out), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))
