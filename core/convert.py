"""Weights from other libraries, both ways, by a table of what is called how.

    table = [
        Row("norm.weight", "transformer.norm.weight"),
        Row("blocks.0.attn.proj.weight", "transformer.blocks.0.mixer.out.weight", TRANSPOSED),
        Row(("q.bias", "k.bias", "v.bias"), "transformer.blocks.0.mixer.qkv.bias", stacked(3)),
        Unused("lm_head.weight"),                    # theirs alone: nothing of ours depends on it
    ]
    load(model, their_state, table)                  # theirs -> ours; a name left over is a ValueError
    their_state = unload(model, table)               # ours -> theirs

Every domain keeps its tables in `convert.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

Tensors = Sequence[Tensor]


class Transform(NamedTuple):
    """From their tensors to ours, and back."""

    forward: Callable[[Tensors], Tensors]
    inverse: Callable[[Tensors], Tensors]

    def then(self, other: "Transform") -> "Transform":
        """This one, and on its result the other."""
        return Transform(
            lambda theirs: other.forward(self.forward(theirs)), lambda ours: self.inverse(other.inverse(ours))
        )


SAME = Transform(list, list)


@dataclass(frozen=True)
class Row:
    """Some of their tensors are some of ours, one for one unless `how` says otherwise."""

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    how: Transform = SAME


@dataclass(frozen=True)
class Unused:
    """A pattern of names that mean nothing to a model of ours. They need not be there, and are not written back."""

    theirs: str


Table = Sequence[Row | Unused]


@torch.no_grad()
def load(model: nn.Module, state: Mapping[str, Tensor], table: Table) -> None:
    """Give a model the weights of `state`. Nothing is written unless all of them fit.

    Raises:
        ValueError: for a name of theirs that no row explains, one that is missing, a parameter of ours that no row
            fills, or a shape that differs.
    """
    rows, parameters = _rows(table), dict(model.named_parameters())
    ignored = [row.theirs for row in table if isinstance(row, Unused)]
    wanted = {name for row in rows for name in _names(row.theirs)}
    unknown = {name for name in state.keys() - wanted if not any(fnmatchcase(name, one) for one in ignored)}
    _complain("these weights are missing", wanted - state.keys())
    _complain("no row of the table takes these weights", unknown)
    _complain("no row of the table fills these parameters", parameters.keys() - _ours(rows))
    found: dict[str, Tensor] = {}
    for row in rows:
        found |= zip(_names(row.ours), row.how.forward([state[name] for name in _names(row.theirs)]), strict=True)
    shapes = {name: (tuple(value.shape), tuple(parameters[name].shape)) for name, value in found.items()}
    _complain("shapes differ", {f"{name} {a} for {b}" for name, (a, b) in shapes.items() if a != b})
    for name, value in found.items():
        parameters[name].copy_(value)


@torch.no_grad()
def export_state_dict(model: nn.Module, table: Table) -> dict[str, Tensor]:
    """The weights of a model under their names.

    Raises:
        ValueError: for a parameter that the other library has no place for.
    """
    rows, parameters = _rows(table), {name: value.detach() for name, value in model.named_parameters()}
    _complain("no row of the table takes these parameters", parameters.keys() - _ours(rows))
    state: dict[str, Tensor] = {}
    for row in rows:
        values = row.how.inverse([parameters[name] for name in _names(row.ours)])
        copies = (value.clone(memory_format=torch.contiguous_format) for value in values)
        state |= zip(_names(row.theirs), copies, strict=True)
    return state


# What a row can do. Each is exact in both directions.


def each(forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]) -> Transform:
    """The same change to every tensor."""
    return Transform(lambda theirs: [forward(t) for t in theirs], lambda ours: [inverse(t) for t in ours])


TRANSPOSED = each(lambda t: t.T, lambda t: t.T)  # (in, out), as GPT-2's Conv1D has it


def stacked(*rows: int) -> Transform:
    """Several of theirs, of so many rows each, are the rows of one of ours: q, k and v as one projection."""
    return Transform(lambda theirs: [torch.cat(list(theirs))], lambda ours: ours[0].split(rows))


def shaped(theirs: tuple[int, ...], ours: tuple[int, ...]) -> Transform:
    """The same numbers in another shape; -1 for a size that follows from the rest."""
    return each(lambda t: t.reshape(ours), lambda t: t.reshape(theirs))


def reordered(order: Tensor) -> Transform:
    """Our row n is their row order[n]."""
    return each(lambda t: t[order], lambda t: t[order.argsort()])


def absent(*shape: int) -> Transform:
    """They have no such weight; where there were one it would be 0."""

    def back(ours: Tensors) -> Tensors:
        if any(t.any() for t in ours):
            raise ValueError("the other library has no place for a bias that has been trained away from 0")
        return []

    return Transform(lambda theirs: [torch.zeros(shape)], back)


def half_split(heads: int, head_dim: int) -> Tensor:
    """The order of rows that turns rotary pairs (2d, 2d + 1) of each head into ours, (d, d + D/2), for `reordered`.

    Queries and keys change places alike, so their products stay what they were. Source: Llama's converter.
    """
    return torch.arange(heads * head_dim).view(heads, head_dim // 2, 2).mT.flatten()


def _rows(table: Table) -> list[Row]:
    return [row for row in table if isinstance(row, Row)]


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _ours(rows: list[Row]) -> set[str]:
    return {name for row in rows for name in _names(row.ours)}


def _complain(what: str, names: set[str]) -> None:
    if names:
        some = sorted(names)
        rest = f" and {len(some) - 8} more" if len(some) > 8 else ""
        raise ValueError(f"{what}: {', '.join(some[:8])}{rest}")
