"""Position encodings that are added to the tokens before the first block.

Shapes: B batch · L tokens · A axes · C token width
"""

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.positions.base import Frequencies, Position, Span, Tables, angles_of, check_width, has_position, recorded


class CombinedPosition(Position):
    """A table for tokens, and a scheme that acts in another place (EVA-02: Fang et al. 2023)."""

    def __init__(self, table: "Learned", other: Position):
        super().__init__()
        self.table, self.other = table, other

    def add(self, x, positions):
        return self.table.add(x, positions)

    def rotations(self, positions, depth):
        return self.other.rotations(positions, depth)


class Learned(Position):
    """One trained vector for each place of a grid (Radford et al. 2018, Dosovitskiy et al. 2020).

    Args:
        dim: token width C.
        extent: places along each axis; a position outside is a ValueError.
    """

    def __init__(self, dim: int, extent: tuple[int, ...]):
        super().__init__()
        self.extent = extent
        self.table = nn.Parameter(torch.randn(prod(extent), dim) * 0.02)

    def add(self, x, positions):
        if isinstance(positions, Span):
            self._check(positions.stop - 1)
            return x + self.table[positions.start : positions.stop]
        row = torch.zeros_like(positions[..., 0])
        for axis, size in enumerate(self.extent):
            row = row * size + positions[..., axis]
        if _has_values(row):
            self._check(int(row.max()))
        return x + self.table[row.clamp(min=0)] * has_position(positions)

    def _check(self, last: int) -> None:
        if last >= len(self.table):
            raise ValueError(f"position {last} is outside of the {len(self.table)} learned ones")


def _has_values(t: Tensor) -> bool:
    """Return whether the values can be read without waiting for a device."""
    return t.device.type == "cpu" and not recorded(t)


class Sinusoidal(Position):
    """Fixed sines and cosines of falling frequency, an equal share of the width for each axis (Vaswani et al. 2017)."""

    def __init__(self, dim: int, axes: int = 1, base: float = 10_000.0):
        super().__init__()
        check_width("token width", dim, axes)
        self.axes, self.frequencies, self.tables = axes, Frequencies(dim, axes, base), Tables[Tensor]()

    def add(self, x, positions):
        table = self.tables.slice(positions, self.table) if isinstance(positions, Span) else self.table(positions)
        return x + table.to(x.dtype)

    def table(self, positions: Tensor) -> Float[Tensor, "*batch L C"]:
        angle = angles_of(positions, self.axes, self.frequencies.near(positions))  # (*, L, C / 2)
        return torch.cat([angle.sin(), angle.cos()], -1) * has_position(positions)
