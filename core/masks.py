"""Who may see whom.

A mask is a predicate in absolute positions, `allows(b, h, i, j)`: may query i of head h in batch entry b see key j?
Keys are numbered from 0; the last query stands beside the last key, so with a cache (fewer queries than keys)
causality is right by construction.

Shapes: B batch · H heads · L queries · M keys
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """The base of all masks. Join two with `&`: a key is seen where both allow it."""

    def allows(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """From index tensors b (B,1,1,1), h (1,H,1,1), i (1,1,L,1), j (1,1,1,M) to bool, broadcastable to (B,H,L,M)."""
        raise NotImplementedError

    def dense(self, batch: int, heads: int, queries: int, keys: int, device: torch.device | str = "cpu") -> Tensor:
        """The predicate as a bool tensor with 4 dimensions; those that the mask does not depend on keep size 1."""
        b = torch.arange(batch, device=device).view(-1, 1, 1, 1)
        h = torch.arange(heads, device=device).view(1, -1, 1, 1)
        i = torch.arange(keys - queries, keys, device=device).view(1, 1, -1, 1)
        j = torch.arange(keys, device=device).view(1, 1, 1, -1)
        return self.allows(b, h, i, j)

    def __and__(self, other: "Mask") -> "Mask":
        if isinstance(other, Everything):
            return self
        return other if isinstance(self, Everything) else And(self, other)


@dataclass(frozen=True, eq=False)
class Everything(Mask):
    """Every query sees every key."""

    def allows(self, b, h, i, j):
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=j.device)


@dataclass(frozen=True, eq=False)
class Causal(Mask):
    """A query sees the keys up to and including its own position."""

    def allows(self, b, h, i, j):
        return j <= i


@dataclass(frozen=True, eq=False)
class Window(Mask):
    """A query sees `left` keys before it, itself, and `right` keys after it."""

    left: int
    right: int = 0

    def __post_init__(self):
        if self.left < 0 or self.right < 0:
            raise ValueError(f"Window needs left >= 0 and right >= 0, got left={self.left}, right={self.right}")

    def allows(self, b, h, i, j):
        return (j >= i - self.left) & (j <= i + self.right)


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Only real keys are seen: valid (B, M), bool, False where a key is padding."""

    valid: Tensor

    def __post_init__(self):
        if self.valid.dim() != 2 or self.valid.dtype != torch.bool:
            raise ValueError(
                f"Padding needs valid (batch, keys) of bool, got {tuple(self.valid.shape)} of {self.valid.dtype}"
            )

    def allows(self, b, h, i, j):
        if self.valid.shape != (b.numel(), j.numel()):
            raise ValueError(
                f"Padding for (batch, keys) {tuple(self.valid.shape)} met attention over {(b.numel(), j.numel())}"
            )
        return self.valid[:, None, None, :]


@dataclass(frozen=True, eq=False)
class And(Mask):
    """Both masks allow it."""

    first: Mask
    second: Mask

    def allows(self, b, h, i, j):
        return self.first.allows(b, h, i, j) & self.second.allows(b, h, i, j)
