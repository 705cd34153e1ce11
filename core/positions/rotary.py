"""Rotary position encodings: queries and keys are rotated by angles that grow with the position.

Shapes: B batch · H heads · L tokens · A axes · D head width
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.config import RotaryScaling
from core.positions.base import (
    Frequencies,
    Position,
    Rotation,
    Span,
    Tables,
    angles_of,
    as_tensor,
    check_width,
    has_position,
    recorded,
)
from core.rotary_scaling import frequency_divisors


class Rotary(Position):
    """Rotates each pair of features (d, d + D/2) of queries and keys by an angle that grows with the position.

        ⟨R(i) q, R(j) k⟩ depends on i - j alone

    Source: Su et al. 2021, in the half-split layout of GPT-NeoX.

    Args:
        head_dim: head width D.
        axes: A.
        base: the longest wavelength, in units of 2π positions.
        scaling: divisors of the frequencies, for one axis.
        save_frequencies: keep them with the weights, for models that were trained with rounded ones (ESM-2).
    """

    def __init__(
        self,
        head_dim: int,
        axes: int = 1,
        base: float = 10_000.0,
        scaling: RotaryScaling | None = None,
        *,
        save_frequencies: bool = False,
    ):
        super().__init__()
        check_width("head width", head_dim, axes)
        self.axes, self.size = axes, 1.0 if scaling is None else scaling.attention_factor
        divisors = None if scaling is None else frequency_divisors(scaling, head_dim, base)
        self.frequencies, self.tables = Frequencies(head_dim, axes, base, divisors), Tables[Rotation]()
        known = self.frequencies.near(torch.zeros(0)).clone()
        self.frequency = nn.Parameter(known, requires_grad=False) if save_frequencies else None
        self.last: tuple[Tensor, int, Rotation] | None = None

    def rotation(self, positions):
        if self.frequency is not None:
            return self._rotation(as_tensor(positions))
        if isinstance(positions, Span):
            return self.tables.slice(positions, self._rotation)
        if recorded(positions) or torch.is_inference_mode_enabled() or positions.is_inference():
            return self._rotation(positions)
        version = positions._version  # of changes in place; the grid of an image is the same at each step
        if self.last is None or self.last[0] is not positions or self.last[1] != version:
            self.last = positions, version, self._rotation(positions)
        return self.last[2]

    def _rotation(self, positions: Tensor) -> Rotation:
        angle = self.angles(positions) * has_position(positions)  # (*, L, D / 2)
        return Rotation.by(angle.unsqueeze(-3) if angle.dim() > 2 else angle, self.size)  # the same for every head

    def angles(self, positions: Tensor) -> Float[Tensor, "*batch L half"]:
        known = self.frequencies.near(positions) if self.frequency is None else self.frequency.float()
        return angles_of(positions, self.axes, known)


class AxialRotary(Rotary):
    """Rotary over the rows and columns of an image, half of the head width for each (Heo et al. 2024)."""

    def __init__(self, head_dim: int, base: float = 100.0):
        super().__init__(head_dim, axes=2, base=base)


class CentredRotary(AxialRotary):
    """Axial rotary in parts of the image: rows and columns run from -1 to 1 and count in turns, whatever their number.

    Source: DINOv3 (Siméoni et al. 2025).

    Args:
        head_dim: head width D, a multiple of 4.
        extent: rows and columns of the grid.
        base: the longest wavelength, in halves of the image.
    """

    def __init__(self, head_dim: int, extent: tuple[int, ...], base: float = 100.0):
        super().__init__(head_dim, base)
        self.extent = extent

    def angles(self, positions):
        size = torch.tensor(self.extent, device=positions.device)
        return super().angles(2 * torch.pi * ((2 * positions + 1) / size - 1))


class MixedRotary(Position):
    """Rotary along directions that each head of each block learns: θ = row · f_row + column · f_column.

    Source: RoPE-Mixed (Heo et al. 2024), and its start: pairs of directions at right angles, turned at random.

    Args:
        num_heads, head_dim: H, and D, a multiple of 4.
        depth: blocks.
        base: wavelengths start from 2π up to 2π · base places.
    """

    def __init__(self, num_heads: int, head_dim: int, depth: int, base: float = 10.0):
        super().__init__()
        check_width("head width", head_dim, 2)
        size = base ** (-torch.arange(0, head_dim, 4) / head_dim)  # (D / 4,)
        turn = torch.rand(depth, num_heads, 1) * 2 * torch.pi
        angle = torch.cat([turn.expand(-1, -1, len(size)), turn.expand(-1, -1, len(size)) + torch.pi / 2], -1)
        self.frequency = nn.Parameter(torch.stack([angle.sin(), angle.cos()]) * size.repeat(2))  # (2, depth, H, D / 2)

    def rotations(self, positions, depth):
        positions = as_tensor(positions)
        place = (positions * has_position(positions)).float()[..., None, None, :, :, None]  # (*, 1, 1, L, 2, 1)
        row, column = self.frequency[..., None, :]  # (depth, H, 1, D / 2)
        angles = place[..., 0, :] * row + place[..., 1, :] * column  # (*, depth, H, L, D / 2)
        return [Rotation.by(angle) for angle in angles.unbind(-4)]
