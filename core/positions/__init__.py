"""Position encodings.

A scheme acts in one of three places: `add` changes the tokens before the first block, `rotations` rotate queries and
keys in every block, `bias` is added to their scores. Each scheme overrides the one it needs.

Shapes: B batch · L tokens · M keys · A axes (1 in a sequence, 2 in an image) · C token width · H heads · D head width
Positions are whole numbers, (L, A) or (B, L, A), or a Span of a sequence. A token at -1 has no position: no table adds
to it, and it is not rotated.
"""

from dataclasses import replace

from core.config import GRID_KINDS, ROTARY_KINDS, PositionConfig, PositionKind, TransformerConfig
from core.positions.absolute import CombinedPosition, Learned, Sinusoidal
from core.positions.base import (
    KeyPositions,
    NoPosition,
    Position,
    Positions,
    Rotation,
    Span,
    as_tensor,
    grid_positions,
    span,
)
from core.positions.relative import ALiBi, Relative
from core.positions.rotary import AxialRotary, CentredRotary, MixedRotary, Rotary

__all__ = [
    "ALiBi", "AxialRotary", "CentredRotary", "CombinedPosition", "KeyPositions", "Learned", "MixedRotary",
    "NoPosition", "Position", "Positions", "Relative", "Rotary", "Rotation", "Sinusoidal", "Span", "as_tensor",
    "grid_positions", "make_position", "span",
]  # fmt: skip


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
        case kind if kind in GRID_KINDS and axes != 2:
            raise ValueError(
                f"position={kind.value} needs tokens on a grid (domain=vision); a sequence takes position=rotary"
            )
        case PositionKind.axial:
            return AxialRotary(head_dim, config.base)
        case PositionKind.centred:
            return CentredRotary(head_dim, extent, config.base)
        case PositionKind.mixed:
            return MixedRotary(heads, head_dim, model.depth, config.base)
