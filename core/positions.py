"""How a token knows where it is.

A position acts in one of three places: `add` changes the tokens before the first block, `rotation` turns queries and
keys in every block, `bias` is added to their scores. Each scheme overrides the one it needs.

Shapes: B batch · L tokens · A axes (1 in a sequence, 2 in an image) · C token width · H heads · D head width
`at` is where the tokens stand: (L, A) or (B, L, A), whole numbers. A token at -1 stands nowhere: no
table adds to it, and it is not turned.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from core.bias import Bias, LowRankBias, PairBias
from core.config import ON_A_GRID, TURNING, PositionConfig, PositionKind, RotaryScaling, TransformerConfig
from core.rotary_scaling import frequency_divisors

At = Int[Tensor, "*batch L A"]
Rotation = Callable[[Tensor], Tensor]  # (B, H, L, D) -> (B, H, L, D)


class Position(nn.Module):
    """The base of all schemes, and the one that does nothing."""

    def add(self, x: Float[Tensor, "B L C"], at: At) -> Float[Tensor, "B L C"]:
        """Tokens x with what their places add."""
        return x

    def rotation(self, at: At) -> Rotation | None:
        """What turns queries and keys that stand at `at`."""
        return None

    def rotations(self, at: At, depth: int) -> Sequence[Rotation | None]:
        """The same for each of `depth` blocks, unless a scheme has angles of its own for each."""
        return [self.rotation(at)] * depth

    def bias(self, at: At, seen: Int[Tensor, "*batch M A"]) -> Bias | None:
        """What is added to the scores of queries at `at` (*, L, A) with keys at `seen` (*, M, A)."""
        return None


class NoPosition(Position):
    """Order comes from the mask alone (Kazemnejad et al. 2023); without a mask, tokens are a set."""


class Together(Position):
    """A table for tokens, and a scheme that acts in another place (EVA-02: Fang et al. 2023)."""

    def __init__(self, table: "Learned", other: Position):
        super().__init__()
        self.table, self.other = table, other

    def add(self, x, at):
        return self.table.add(x, at)

    def rotations(self, at, depth):
        return self.other.rotations(at, depth)


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

    def add(self, x, at):
        place = torch.zeros_like(at[..., 0])
        for axis, size in enumerate(self.extent):
            place = place * size + at[..., axis]
        if _has_values(place) and int(place.max()) >= len(self.table):
            raise ValueError(f"position {int(place.max())} is outside of the {len(self.table)} learned ones")
        return x + self.table[place.clamp(min=0)] * _stands(at)


def _has_values(t: Tensor) -> bool:
    """Whether there are some, and can be read without waiting for a device."""
    return t.device.type == "cpu" and not torch.compiler.is_compiling() and not isinstance(t, FakeTensor)


class Sinusoidal(Position):
    """Fixed sines and cosines of falling frequency, an equal share of the width for each axis (Vaswani et al. 2017)."""

    def __init__(self, dim: int, axes: int = 1, base: float = 10_000.0):
        super().__init__()
        _check_width("token width", dim, axes)
        self.dim, self.axes, self.base = dim, axes, base

    def add(self, x, at):
        angle = _angles(at, self.dim, self.axes, self.base)  # (*, L, C / 2)
        return x + (torch.cat([angle.sin(), angle.cos()], -1) * _stands(at)).to(x.dtype)


class Rotary(Position):
    """Turns each pair of features (d, d + D/2) of queries and keys by an angle that grows with the position.

        ⟨R(i) q, R(j) k⟩ depends on i - j alone

    Source: Su et al. 2021, in the half-split layout of GPT-NeoX.

    Args:
        head_dim: head width D.
        axes: A.
        base: the longest wavelength, in units of 2π places.
        scaling: what divides the frequencies, for one axis.
    """

    def __init__(self, head_dim: int, axes: int = 1, base: float = 10_000.0, scaling: RotaryScaling | None = None):
        super().__init__()
        _check_width("head width", head_dim, axes)
        self.head_dim, self.axes, self.base = head_dim, axes, base
        self.size = 1.0 if scaling is None else scaling.attention_factor
        self.divisors: Tensor | None
        divisors = None if scaling is None else torch.tensor(frequency_divisors(scaling, head_dim, base))
        self.register_buffer("divisors", divisors, persistent=False)

    def rotation(self, at):
        angle = _angles(at, self.head_dim, self.axes, self.base)  # (*, L, D / 2)
        if self.divisors is not None:
            angle = angle / self.divisors
        return _turn((angle * _stands(at)).unsqueeze(-3), self.size)  # the same for every head


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

    def rotation(self, at):
        size = torch.tensor(self.extent, device=at.device)
        centred = 2 * torch.pi * ((2 * at + 1) / size - 1)  # (*, L, 2)
        angle = _angles(centred, self.head_dim, self.axes, self.base) * _stands(at)  # (*, L, D / 2)
        return _turn(angle.unsqueeze(-3))


class MixedRotary(Position):
    """Rotary along directions that each head of each block learns: θ = row · f_row + column · f_column.

    Source: RoPE-Mixed (Heo et al. 2024), and its start: pairs of directions at right angles, turned at random.

    Args:
        heads, head_dim: H, and D, a multiple of 4.
        depth: blocks.
        base: wavelengths start from 2π up to 2π · base places.
    """

    def __init__(self, heads: int, head_dim: int, depth: int, base: float = 10.0):
        super().__init__()
        _check_width("head width", head_dim, 2)
        size = base ** (-torch.arange(0, head_dim, 4) / head_dim)  # (D / 4,)
        turn = torch.rand(depth, heads, 1) * 2 * torch.pi
        angle = torch.cat([turn.expand(-1, -1, len(size)), turn.expand(-1, -1, len(size)) + torch.pi / 2], -1)
        self.frequency = nn.Parameter(torch.stack([angle.sin(), angle.cos()]) * size.repeat(2))  # (2, depth, H, D / 2)

    def rotations(self, at, depth):
        place = (at * _stands(at)).float()[..., None, None, :, :, None]  # (*, 1, 1, L, 2, 1)
        row, column = self.frequency[..., None, :]  # (depth, H, 1, D / 2)
        angles = place[..., 0, :] * row + place[..., 1, :] * column  # (*, depth, H, L, D / 2)
        return [_turn(angle) for angle in angles.unbind(-4)]


class ALiBi(Position):
    """Scores fall with the distance, at a slope of its own for each head: -slope · (i - j). For causal attention.

    Softmax does not see what all keys of a query share, so slope · j is enough, and that has rank 1: it rides along as
    features of queries and keys, and every kernel takes it. A half-precision j would be rounded; its two halves,
    j = 256 · hi + lo, are not.

    Source: Press et al. 2022. Slopes are 2^(-8h / H) for heads h = 1 … H.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.slopes: Tensor
        self.register_buffer("slopes", 2.0 ** (-8 * torch.arange(1, heads + 1) / heads), persistent=False)

    def bias(self, at, seen):
        place = seen[..., 0] - seen[..., :1, 0]  # distances alone count: small numbers are exact
        lo = place % 256
        w = torch.stack([place - lo, lo], -1).float()  # (*, M, 2)
        w = w[None, None] if w.dim() == 2 else w[:, None]  # (B|1, 1, M, 2)
        u = self.slopes[:, None, None].expand(1, -1, at.shape[-2], 2)  # (1, H, L, 2)
        return LowRankBias(u, w)


class Relative(Position):
    """One trained number for each head and each bucket of distances: near ones alone, far ones together.

    Source: T5 (Raffel et al. 2020, section 2.1), its bidirectional buckets.

    Args:
        heads: H.
        buckets: half of them for keys before the query, half for keys after it.
        farthest: distances from here on share the last bucket.
    """

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 128):
        super().__init__()
        self.buckets, self.farthest = buckets, farthest
        self.table = nn.Parameter(torch.zeros(buckets, heads))

    def bias(self, at, seen):
        distance = seen[..., None, :, 0] - at[..., :, None, 0]  # (*, L, M), j - i
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
    dim, heads, axes, head_dim = model.dim, model.heads, len(extent), model.dim // model.heads
    if config.table:
        if config.kind not in TURNING:
            kinds = ", ".join(kind.value for kind in TURNING)
            raise ValueError(f"position.table goes with position.kind={kinds}, not with {config.kind.value}")
        return Together(Learned(dim, extent), make_position(replace(config, table=False), model, extent))
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


def _stands(at: Tensor) -> Tensor:
    """(*, L, A) -> (*, L, 1): 0 for tokens that stand nowhere."""
    return (at >= 0).all(-1, keepdim=True)


def _turn(angle: Tensor, size: float = 1.0) -> Rotation:
    """Turns the pair of features (d, d + D/2) by angle (*, H|1, L, D/2), and makes them `size` times as large."""
    cos, sin = angle.cos(), angle.sin()
    if size != 1:
        cos, sin = cos * size, sin * size

    def rotate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    return rotate


def _angles(at: Tensor, width: int, axes: int, base: float) -> Tensor:
    """(*, L, A) -> (*, L, width / 2): θ = position · base^(-2n / share), a share of the width for each axis."""
    if at.shape[-1] != axes:
        raise ValueError(f"this position has {axes} axes, the tokens were placed on {at.shape[-1]}")
    share = width // axes
    frequency = base ** (-torch.arange(0, share, 2, device=at.device, dtype=torch.float32) / share)
    return (at[..., None].float() * frequency).flatten(-2)


def _check_width(what: str, width: int, axes: int) -> None:
    if width % (2 * axes):
        raise ValueError(
            f"the {what} {width} must be a multiple of {2 * axes} for sinusoidal or rotary positions over {axes} axes"
        )
