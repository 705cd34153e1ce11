"""A ViT on the shared core.

Shapes: B batch · C channels · Y, X pixels · h, w patches along a side · L tokens · K classes
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import PositionConfig
from core.layers import Transformer
from core.positions import grid_positions, make_position
from domains.adapter import Batch, DomainAdapter, Loss, Tokens
from domains.patches import conv_stem
from domains.vision.config import ModelConfig, Pool, Stem
from domains.vision.pooling import AttentionPool

MIN_PATCHES, MAX_PATCHES = 36, 1024  # tokens: fewer, or so many, are warned of


class Adapter(DomainAdapter):
    """An image classifier on patches (Dosovitskiy et al. 2020), from their mean, a class token or attention pooling.

    Class token and registers are the prefix tokens: they come first and have no position.

    Args:
        config: sizes and choices.
        position: the position encoding of patches.
        spec: {"classes", "channels", "size", "mean", "std"} of the data, pixels in [0, 1]; "ranges" is the range that
            became 0 … 1 in images of more than 8 bits, by mode.
    Raises:
        ValueError: if the image is no whole number of patches, for model.pool=token without a class token, or an empty
            range.
    """

    metric_names = ("accuracy", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        (Y, X), p, channels = spec["size"], config.patch_size, spec["channels"]
        if p < 1 or Y % p or X % p:
            raise ValueError(
                f"images of {Y}×{X} pixels cannot be cut into patches of {p}×{p}; set model.patch_size to a divisor"
            )
        if config.pool is Pool.token and not config.class_token:
            raise ValueError("model.pool=token needs model.class_token=true; possible without: mean, mean_then_norm")
        self.config, self.classes = config, spec["classes"]
        self.image_shape = (channels, Y, X)
        self.value_ranges = {mode: (float(low), float(high)) for mode, (low, high) in spec.get("ranges", {}).items()}
        if any(low >= high for low, high in self.value_ranges.values()):
            raise ValueError(f"the ranges of pixels {self.value_ranges} have no width")
        self.grid = (Y // p, X // p)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec["std"]).view(-1, 1, 1))
        if min(Y, X) >= 28 and self.grid[0] * self.grid[1] < MIN_PATCHES:
            warnings.warn(
                f"patches of {p}×{p} leave {self.grid[0] * self.grid[1]} tokens of an image of {Y}×{X} pixels: "
                "little to see; a smaller model.patch_size will do better",
                stacklevel=2,
            )
        if config.stem is Stem.conv:
            self.patch_embed = conv_stem(channels, config.dim, p)
        else:
            self.patch_embed = nn.Conv2d(channels, config.dim, kernel_size=p, stride=p)
        self.num_prefix_tokens = config.class_token + config.reg_tokens
        if self.num_prefix_tokens:
            self.prefix_tokens = nn.Parameter(torch.randn(self.num_prefix_tokens, config.dim) * 0.02)
        self.transformer = Transformer(config, make_position(position, config, self.grid))
        self.attn_pool = AttentionPool(config) if config.pool is Pool.attention else None
        self.fc_norm = nn.Identity()
        if config.pool is Pool.mean_then_norm:
            self.fc_norm, self.transformer.norm = self.transformer.norm, self.fc_norm
        self.classifier = nn.Linear(config.dim, len(self.classes))
        if p < 8 and self.grid[0] * self.grid[1] >= MAX_PATCHES:
            warnings.warn(
                f"patches of {p}×{p} make {self.grid[0] * self.grid[1]} tokens of an image of {Y}×{X} pixels, which is "
                "slow; a larger model.patch_size, such as 8, is many times faster",
                stacklevel=2,
            )

    def tokens(self, batch: Batch) -> Tokens:
        pixels = (batch["images"] - self.mean).div_(self.std).to(next(self.patch_embed.parameters()).dtype)
        x = self.patch_embed(pixels).flatten(2).mT  # (B, h·w, C)
        if self.num_prefix_tokens:
            x = torch.cat([self.prefix_tokens.expand(x.shape[0], -1, -1), x], 1)  # (B, L, C)
        return Tokens(x, positions=grid_positions(self.grid, self.num_prefix_tokens, x))  # (L, 2)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        patches = hidden[:, self.num_prefix_tokens :]
        match self.config.pool:
            case Pool.token:
                pooled = hidden[:, 0]  # (B, C)
            case Pool.attention:
                assert self.attn_pool is not None
                pooled = self.attn_pool(patches)
            case Pool.mean | Pool.mean_then_norm:
                pooled = self.fc_norm(patches.mean(1))
        return self.classifier(pooled)  # (B, K)

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        targets = batch.get("targets", batch["labels"])  # (B, K) where images are mixed
        smoothing = self.config.label_smoothing
        total = F.cross_entropy(predictions, targets, label_smoothing=smoothing, reduction="sum")
        return Loss.of(total, len(predictions))

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels = batch["labels"]
        return {
            "accuracy": (predictions.argmax(-1) == labels).float(),
            "loss": F.cross_entropy(predictions, labels, reduction="none"),
        }
