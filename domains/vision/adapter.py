"""A ViT on the shared core.

Shapes: B batch · C channels · Y, X pixels · h, w patches along a side · L = h·w tokens · K classes
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import PositionConfig
from core.layers import Transformer
from core.positions import make_position
from domains.adapter import Batch, DomainAdapter, Tokens
from domains.vision.config import ModelConfig


class Adapter(DomainAdapter):
    """Image patches as tokens, their mean as the image: 'plain ViT' with average pooling (Beyer et al. 2022).

    Args:
        config: sizes and choices.
        position: how patches know where they are.
        spec: {"classes", "channels", "size", "mean", "std"} of the data, pixels in [0, 1].
    Raises:
        ValueError: if the image is no whole number of patches.
    """

    measures = ("accuracy", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        (Y, X), p, channels = spec["size"], config.patch_size, spec["channels"]
        if p < 1 or Y % p or X % p:
            raise ValueError(
                f"images of {Y}×{X} pixels cannot be cut into patches of {p}×{p}; set model.patch_size to a divisor"
            )
        self.config, self.classes = config, spec["classes"]
        self.images = (channels, Y, X)
        self.grid = (Y // p, X // p)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec["std"]).view(-1, 1, 1))
        self.patch = nn.Conv2d(channels, config.dim, kernel_size=p, stride=p)
        self.transformer = Transformer(config, make_position(position, config, self.grid))
        self.classify = nn.Linear(config.dim, len(self.classes))

    def tokens(self, batch: Batch) -> Tokens:
        x = self.patch((batch["images"] - self.mean) / self.std)  # (B, C, h, w)
        rows, columns = (torch.arange(n, device=x.device) for n in self.grid)
        at = torch.cartesian_prod(rows, columns)  # (L, 2)
        return Tokens(x.flatten(2).mT, at=at)  # (B, L, C)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        return self.classify(hidden.mean(1))  # (B, K)

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(predictions, batch["labels"], label_smoothing=self.config.label_smoothing)

    def measure(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels = batch["labels"]
        return {
            "accuracy": (predictions.argmax(-1) == labels).float(),
            "loss": F.cross_entropy(predictions, labels, reduction="none"),
        }
