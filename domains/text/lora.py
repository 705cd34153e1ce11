"""Fine-tuning with low-rank adapters (LoRA, Hu et al. 2021).

    attend train domain=text init=FOLDER model.lora_rank=8 …         trains the adapters alone
    adapter.merged()                                            the same model without them, for export

Shapes: I features in · O features out · R rank
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALPHA = 16.0  # the product is scaled by this over R: one learning rate fits all ranks
Layer = TypeVar("Layer", bound=nn.Module)


class LoRALinear(nn.Linear):
    """(W + α/R · B A) x: W and its bias are frozen, A (R, I) and B (O, R) are trained, B from 0 on.

    Its other parameters have the names of nn.Linear, so that existing weights fit.
    """

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias, self.scale = base.weight, base.bias, ALPHA / rank
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) * base.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + F.linear(F.linear(input, self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the linear layer that computes the same."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight + self.scale * self.lora_B @ self.lora_A), self.bias
        return layer


def add_lora(blocks: nn.Module, rank: int) -> None:
    """Give every linear layer a low-rank adapter of this rank.

    Raises:
        ValueError: for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"model.lora_rank={rank} must be at least 1, the rank of the change; null trains everything")
    for parent, name, layer in _layers(blocks, nn.Linear):
        setattr(parent, name, LoRALinear(layer, rank))


def merge_lora(blocks: nn.Module) -> None:
    """Replace low-rank adapters by plain layers that compute the same."""
    for parent, name, layer in _layers(blocks, LoRALinear):
        setattr(parent, name, layer.merge())


def _layers(blocks: nn.Module, kind: type[Layer]) -> list[tuple[nn.Module, str, Layer]]:
    """Return every layer of a kind: its parent, its name there, and itself."""
    return [
        (parent, name, layer)
        for parent in blocks.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, kind)
    ]
