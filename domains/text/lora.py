"""Fine-tuning by a small change to each matrix: low-rank adapters (LoRA, Hu et al. 2021).

    attend train domain=text init=FOLDER model.lora=8 …         only the changes are trained
    adapter.merged()                                            the same model without them, for export

Shapes: I features in · O features out · R rank
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHA = 16.0  # the change is scaled by this over R, so that the learning rate need not follow the rank
Layer = TypeVar("Layer", bound=nn.Module)


class LowRank(nn.Linear):
    """(W + α/R · B A) x: W and its bias stay as they are, A (R, I) and B (O, R) are trained, B from 0 on.

    Its other names are those of nn.Linear, so that weights from before fit.
    """

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias, self.scale = base.weight, base.bias, ALPHA / rank
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + F.linear(F.linear(input, self.down), self.up) * self.scale

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The linear layer that computes the same."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight + self.scale * self.up @ self.down), self.bias
        return layer


def attach(blocks: nn.Module, rank: int) -> None:
    """Give every linear layer a change of this rank.

    Raises:
        ValueError: for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"model.lora={rank} must be at least 1, the rank of the change; null trains everything")
    for parent, name, layer in _layers(blocks, nn.Linear):
        setattr(parent, name, LowRank(layer, rank))


def merge(blocks: nn.Module) -> None:
    """Make plain layers of them again, with the change inside."""
    for parent, name, layer in _layers(blocks, LowRank):
        setattr(parent, name, layer.plain())


def _layers(blocks: nn.Module, kind: type[Layer]) -> list[tuple[nn.Module, str, Layer]]:
    """Every layer of a kind: its parent, its name there, and itself."""
    return [
        (parent, name, layer)
        for parent in blocks.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, kind)
    ]
