"""Positions of tokens, what is tabulated over them, and the base of all schemes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from core.bias import Bias


@dataclass(frozen=True)
class Span:
    """The positions start, start + 1 … stop - 1 of a sequence. Tables over them are made once, and sliced."""

    start: int
    stop: int
    device: torch.device

    def tensor(self) -> Int[Tensor, "L 1"]:
        return torch.arange(self.start, self.stop, device=self.device)[:, None]


Positions = Int[Tensor, "*batch L A"] | Span
KeyPositions = Int[Tensor, "*batch M A"] | Span


def as_tensor(positions: Positions) -> Int[Tensor, "*batch L A"]:
    return positions.tensor() if isinstance(positions, Span) else positions


def span(start: int, stop: int, x: Tensor) -> Positions:
    """The positions start … stop - 1 on the device of x."""
    found = Span(start, stop, x.device)
    return found.tensor() if recorded(x) else found


def grid_positions(extent: tuple[int, ...], prefix: int, x: Tensor) -> Int[Tensor, "L A"]:
    """The positions of a grid, row by row, behind so many tokens that have none: on the device of x, made once.

    It is no buffer of a module, for an average of weights over time would average it, too.
    """
    return (_grid.__wrapped__ if recorded(x) else _grid)(extent, prefix, x.device)


@lru_cache(maxsize=64)
def _grid(extent: tuple[int, ...], prefix: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        positions = torch.cartesian_prod(*(torch.arange(size, device=device) for size in extent))
        return F.pad(positions, (0, 0, prefix, 0), value=-1)


@dataclass(frozen=True, eq=False)
class Rotation:
    """An angle for each pair of features (d, d + D/2) at each position, as its cosine and its sine.

    Attributes:
        cos: (*, L, D), the same in both halves.
        sin: (*, L, D), negative in the first half.
    """

    cos: Tensor
    sin: Tensor

    @staticmethod
    def by(angle: Tensor, size: float = 1.0) -> "Rotation":
        """The rotation by angles (*, L, D/2) that makes vectors `size` times as long."""
        cos, sin = angle.cos(), angle.sin()
        if size != 1:
            cos, sin = cos * size, sin * size
        return Rotation(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))

    @property
    def per_head(self) -> bool:
        """Whether the angles differ between heads."""
        return self.cos.dim() > 2 and self.cos.shape[-3] > 1

    def __len__(self) -> int:
        return len(self.cos)

    def __getitem__(self, index) -> "Rotation":
        return Rotation(self.cos[index], self.sin[index])

    def rotate(self, x: Float[Tensor, "*B L D"]) -> Float[Tensor, "*B L D"]:
        """(a, b) -> (a cos - b sin, b cos + a sin), in the dtype of x."""
        a, b = x.chunk(2, dim=-1)
        rotated = x * self.cos + torch.cat([b, a], -1) * self.sin
        return rotated if rotated.dtype == x.dtype else rotated.to(x.dtype)


Table = TypeVar("Table", Tensor, Rotation)


class Tables(dict[torch.device, Table]):
    """A table over the positions 0, 1, 2 … for each device, made once, and anew when a longer one is needed."""

    def slice(self, where: Span, make: Callable[[Tensor], Table]) -> Table:
        """The rows of a Span. `make` gives the table of positions (L, 1)."""
        table = self.get(where.device)
        if table is None or len(table) < where.stop:
            length = max(where.stop, 0 if table is None else 2 * len(table))
            with torch.inference_mode(False), torch.no_grad():  # what validation has made, training may need
                table = self[where.device] = make(Span(0, length, where.device).tensor())
        return table[where.start : where.stop]


class Frequencies(dict[torch.device, Tensor]):
    """base^(-2n / share) / divisor, with a share of the width for each axis: made once for each device, in float32."""

    def __init__(self, width: int, axes: int, base: float, divisors: list[float] | None = None):
        super().__init__()
        self.share, self.base, self.divisors = width // axes, base, divisors

    def near(self, positions: Tensor) -> Float[Tensor, " n"]:
        """On the device of some positions."""
        device = positions.device
        if device in self and not recorded(positions):
            return self[device]
        found = self.base ** (-torch.arange(0, self.share, 2, device=device, dtype=torch.float32) / self.share)
        if self.divisors is not None:
            found = found / torch.tensor(self.divisors, device=device)
        if not recorded(positions):
            self[device] = found
        return found


def recorded(x: Tensor) -> bool:
    """Return whether a compiler or a fake tensor mode traces x. Nothing is kept for later then."""
    return torch.compiler.is_compiling() or isinstance(x, FakeTensor)


class Position(nn.Module):
    """The base of all schemes, and the one that does nothing."""

    def add(self, x: Float[Tensor, "B L C"], positions: Positions) -> Float[Tensor, "B L C"]:
        """Return tokens x plus the vectors of their positions."""
        return x

    def rotation(self, positions: Positions) -> Rotation | None:
        """Return the rotation of queries and keys."""
        return None

    def rotations(self, positions: Positions, depth: int) -> Sequence[Rotation | None]:
        """Return the rotation for each of `depth` blocks: one for all, unless a scheme has angles for each."""
        return [self.rotation(positions)] * depth

    def bias(self, positions: Positions, key_positions: KeyPositions) -> Bias | None:
        """Return the bias (B|1, H, L, M) on the scores of queries and keys."""
        return None


class NoPosition(Position):
    """Order comes from the mask alone (Kazemnejad et al. 2023); without a mask, tokens are a set."""


def has_position(positions: Tensor) -> Tensor:
    """(*, L, A) -> (*, L, 1): False for tokens without a position."""
    return (positions >= 0).all(-1, keepdim=True)


def angles_of(positions: Tensor, axes: int, frequencies: Tensor) -> Float[Tensor, "*batch L half"]:
    """(*, L, A) -> (*, L, A · n): position · frequency, axis by axis."""
    if positions.shape[-1] != axes:
        raise ValueError(f"this position has {axes} axes, the tokens were placed on {positions.shape[-1]}")
    return (positions[..., None].float() * frequencies).flatten(-2)


def check_width(what: str, width: int, axes: int) -> None:
    if width % (2 * axes):
        raise ValueError(
            f"the {what} {width} must be a multiple of {2 * axes} for sinusoidal or rotary positions over {axes} axes"
        )
