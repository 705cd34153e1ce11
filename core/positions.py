"""Position encodings.

A scheme acts in one of three places: `add` changes the tokens before the first block, `rotations` rotate queries and
keys in every block, `bias` is added to their scores. Each scheme overrides the one it needs.

Shapes: B batch · L tokens · M keys · A axes (1 in a sequence, 2 in an image) · C token width · H heads · D head width
Positions are whole numbers, (L, A) or (B, L, A), or a Span of a sequence. A token at -1 has no position: no table adds
to it, and it is not rotated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log, prod
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from core.bias import Bias, LowRankBias, PairBias
from core.config import ON_A_GRID, ROTARY_KINDS, PositionConfig, PositionKind, RotaryScaling, TransformerConfig
from core.rotary_scaling import frequency_divisors


@dataclass(frozen=True)
class Span:
    """The positions start, start + 1 … stop - 1 of a sequence. Tables over them are made once, and sliced."""

    start: int
    stop: int
    device: torch.device

    def tensor(self) -> Int[Tensor, "L 1"]:
        return torch.arange(self.start, self.stop, device=self.device)[:, None]


Positions = Int[Tensor, "*batch L A"] | Span


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

    def bias(self, positions: Positions, key_positions: Positions) -> Bias | None:
        """Return the bias (B|1, H, L, M) on the scores of queries and keys."""
        return None


class NoPosition(Position):
    """Order comes from the mask alone (Kazemnejad et al. 2023); without a mask, tokens are a set."""


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
        _check_width("token width", dim, axes)
        self.axes, self.frequencies, self.tables = axes, Frequencies(dim, axes, base), Tables[Tensor]()

    def add(self, x, positions):
        table = self.tables.slice(positions, self.table) if isinstance(positions, Span) else self.table(positions)
        return x + table.to(x.dtype)

    def table(self, positions: Tensor) -> Float[Tensor, "*batch L C"]:
        angle = _angles(positions, self.axes, self.frequencies.near(positions))  # (*, L, C / 2)
        return torch.cat([angle.sin(), angle.cos()], -1) * has_position(positions)


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
        _check_width("head width", head_dim, axes)
        self.axes, self.size = axes, 1.0 if scaling is None else scaling.attention_factor
        divisors = None if scaling is None else frequency_divisors(scaling, head_dim, base)
        self.frequencies, self.tables = Frequencies(head_dim, axes, base, divisors), Tables[Rotation]()
        known = self.frequencies.near(torch.zeros(0)).clone()
        self.frequency = nn.Parameter(known, requires_grad=False) if save_frequencies else None
        self.last: tuple[Tensor, Rotation] | None = None

    def rotation(self, positions):
        if self.frequency is not None:
            return self._rotation(as_tensor(positions))
        if isinstance(positions, Span):
            return self.tables.slice(positions, self._rotation)
        if recorded(positions) or torch.is_inference_mode_enabled():
            return self._rotation(positions)
        if self.last is None or self.last[0] is not positions:  # such as the grid of an image, the same at each step
            self.last = positions, self._rotation(positions)
        return self.last[1]

    def _rotation(self, positions: Tensor) -> Rotation:
        angle = self.angles(positions) * has_position(positions)  # (*, L, D / 2)
        return Rotation.by(angle.unsqueeze(-3) if angle.dim() > 2 else angle, self.size)  # the same for every head

    def angles(self, positions: Tensor) -> Float[Tensor, "*batch L half"]:
        known = self.frequencies.near(positions) if self.frequency is None else self.frequency.float()
        return _angles(positions, self.axes, known)


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
        _check_width("head width", head_dim, 2)
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


class ALiBi(Position):
    """Scores fall with the distance, at a slope of its own for each head: -slope · (i - j). For causal attention.

    Softmax does not see what all keys of a query share, so slope · j is enough, and that has rank 1: it becomes
    features of queries and keys, and every kernel takes it. A half-precision j would be rounded; its two halves,
    j = 256 · hi + lo, are not.

    Source: Press et al. 2022. Slopes are 2^(-8h / H) for heads h = 1 … H.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.slopes: Tensor
        self.register_buffer("slopes", 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads), persistent=False)

    def bias(self, positions, key_positions):
        key = as_tensor(key_positions)[..., 0]
        key = key - key[..., :1]  # distances alone count: small numbers are exact
        lo = key % 256
        w = torch.stack([key - lo, lo], -1).float()  # (*, M, 2)
        w = w[None, None] if w.dim() == 2 else w[:, None]  # (B|1, 1, M, 2)
        u = self.slopes[:, None, None].expand(1, -1, as_tensor(positions).shape[-2], 2)  # (1, H, L, 2)
        return LowRankBias(u, w)


class Relative(Position):
    """One trained number for each head and each bucket of distances: near ones alone, far ones together.

    Source: T5 (Raffel et al. 2020, section 2.1), its bidirectional buckets.

    Args:
        num_heads: H.
        buckets: half of them for keys before the query, half for keys after it.
        farthest: distances from here on share the last bucket.
    """

    def __init__(self, num_heads: int, buckets: int = 32, farthest: int = 128):
        super().__init__()
        self.buckets, self.farthest = buckets, farthest
        self.table = nn.Parameter(torch.zeros(buckets, num_heads))

    def bias(self, positions, key_positions):
        query, key = as_tensor(positions), as_tensor(key_positions)
        distance = key[..., None, :, 0] - query[..., :, None, 0]  # (*, L, M), j - i
        values = self.table[self.bucket(distance)]  # (*, L, M, H)
        values = values.movedim(-1, -3)  # (*, H, L, M)
        return PairBias(values if values.dim() == 4 else values[None])

    def bucket(self, distance: Tensor) -> Tensor:
        half = self.buckets // 2
        exact = half // 2
        size = distance.abs()
        far = exact + (size.clamp(min=1) / exact).log() / log(self.farthest / exact) * (half - exact)
        return torch.where(size < exact, size, far.long().clamp(max=half - 1)) + half * (distance > 0)


def make_position(config: PositionConfig, model: TransformerConfig, extent: tuple[int, ...]) -> Position:
    """The scheme that a configuration names, for the tokens of a model that stand on a grid of `extent` places."""
    dim, heads, axes, head_dim = model.dim, model.num_heads, len(extent), model.dim // model.num_heads
    if config.table:
        if config.kind not in ROTARY_KINDS:
            kinds = ", ".join(kind.value for kind in ROTARY_KINDS)
            raise ValueError(f"position.table goes with position.kind={kinds}, not with {config.kind.value}")
        return CombinedPosition(Learned(dim, extent), make_position(replace(config, table=False), model, extent))
    if config.scaling is not None and (config.kind is not PositionKind.rotary or axes != 1):
        raise ValueError(f"position.scaling goes with position=rotary in a sequence, not with {config.kind.value}")
    match config.kind:
        case PositionKind.none:
            return NoPosition()
        case PositionKind.learned:
            return Learned(dim, extent)
        case PositionKind.sinusoidal:
            return Sinusoidal(dim, axes, config.base)
        case PositionKind.rotary:
            return Rotary(head_dim, axes, config.base, config.scaling)
        case PositionKind.alibi | PositionKind.relative if axes != 1:
            raise ValueError(f"position={config.kind.value} needs tokens in a sequence; a grid takes position=axial")
        case PositionKind.alibi:
            return ALiBi(heads)
        case PositionKind.relative:
            return Relative(heads)
        case kind if kind in ON_A_GRID and axes != 2:
            raise ValueError(
                f"position={kind.value} needs tokens on a grid (domain=vision); a sequence takes position=rotary"
            )
        case PositionKind.axial:
            return AxialRotary(head_dim, config.base)
        case PositionKind.centred:
            return CentredRotary(head_dim, extent, config.base)
        case PositionKind.mixed:
            return MixedRotary(heads, head_dim, model.depth, config.base)


def has_position(positions: Tensor) -> Tensor:
    """(*, L, A) -> (*, L, 1): False for tokens without a position."""
    return (positions >= 0).all(-1, keepdim=True)


def _angles(positions: Tensor, axes: int, frequencies: Tensor) -> Float[Tensor, "*batch L half"]:
    """(*, L, A) -> (*, L, A · n): position · frequency, axis by axis."""
    if positions.shape[-1] != axes:
        raise ValueError(f"this position has {axes} axes, the tokens were placed on {positions.shape[-1]}")
    return (positions[..., None].float() * frequencies).flatten(-2)


def _check_width(what: str, width: int, axes: int) -> None:
    if width % (2 * axes):
        raise ValueError(
            f"the {what} {width} must be a multiple of {2 * axes} for sinusoidal or rotary positions over {axes} axes"
        )
