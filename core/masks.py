"""Attention masks.

A mask is a predicate in absolute positions, `allows(b, h, i, j)`: may query i of head h in batch entry b see key j?
Keys are numbered from 0; the last query has the position of the last key, so causality is right with a cache
(fewer queries than keys). One predicate feeds every kernel.

    Causal() & Documents(ids)          packed texts          Causal() | Prefix(64)      a prefix read both ways
    Window(128) & Causal()             a sliding window      ~Documents(ids)            other documents only

Shapes: B batch · H heads · L queries · M keys
"""

from copy import copy
from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """The base of all masks, joined by & (both allow), | (either allows) and ~ (what was hidden is seen)."""

    def allows(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """From index tensors b (B,1,1,1), h (1,H,1,1), i (1,1,L,1), j (1,1,1,M) to bool, broadcastable to (B,H,L,M)."""
        raise NotImplementedError

    def check(self, batch: int, queries: int, keys: int) -> None:
        """Raises ValueError if the mask was made for other sizes."""

    def extent(self) -> tuple[float, float]:
        """Return the most keys before and after itself that a query sees."""
        return inf, inf

    def simplify(self, queries: int, keys: int) -> "Mask":
        """Return an equal mask for these sizes that more kernels can take."""
        return self

    def sees_itself(self) -> bool:
        """Return whether every query sees the key at its own position."""
        return False

    def last_sees_all(self) -> bool:
        """Return whether the last query sees every key but left padding, whose values are finite."""
        return False

    def slice_heads(self, first: int, last: int) -> "Mask":
        """The mask of the heads from `first` up to `last`, counted from 0."""
        return self

    def dense(
        self, batch: int, heads: int, queries: int, keys: int, device: torch.device | str = "cpu"
    ) -> Bool[Tensor, "b h l m"]:
        """The predicate as a tensor; dimensions that the mask does not depend on keep size 1."""
        self.check(batch, queries, keys)
        b = torch.arange(batch, device=device).view(-1, 1, 1, 1)
        h = torch.arange(heads, device=device).view(1, -1, 1, 1)
        i = torch.arange(keys - queries, keys, device=device).view(1, 1, -1, 1)
        j = torch.arange(keys, device=device).view(1, 1, 1, -1)
        return self.allows(b, h, i, j)

    def remembering(self) -> "Mask":
        """Return a copy that keeps its tensor for all blocks of one forward pass; this object itself may change."""
        mask = copy(self)
        mask.__dict__["known"] = None
        return mask

    def __and__(self, other: "Mask") -> "Mask":
        if isinstance(other, NoMask):
            return self
        return other if isinstance(self, NoMask) else And(self, other)

    def __or__(self, other: "Mask") -> "Mask":
        return NoMask() if NoMask in (type(self), type(other)) else Or(self, other)

    def __invert__(self) -> "Mask":
        return self.hidden if isinstance(self, Not) else Not(self)


@dataclass(frozen=True, eq=False)
class NoMask(Mask):
    """The mask that hides nothing."""

    def allows(self, b, h, i, j):
        return torch.ones_like(j, dtype=torch.bool)

    def sees_itself(self):
        return True

    def last_sees_all(self):
        return True


@dataclass(frozen=True, eq=False)
class Causal(Mask):
    """A query sees the keys up to and including its own position."""

    def allows(self, b, h, i, j):
        return j <= i

    def sees_itself(self):
        return True

    def last_sees_all(self):
        return True

    def extent(self):
        return inf, 0

    def simplify(self, queries, keys):
        return NoMask() if queries == 1 else self  # the newest token sees all that is kept


@dataclass(frozen=True, eq=False)
class Window(Mask):
    """A query sees `left` keys before it, itself, and `right` keys after it (Beltagy et al. 2020)."""

    left: int
    right: int = 0

    def __post_init__(self):
        if self.left < 0 or self.right < 0:
            raise ValueError(f"Window needs left >= 0 and right >= 0, got left={self.left}, right={self.right}")

    def allows(self, b, h, i, j):
        return (j >= i - self.left) & (j <= i + self.right)

    def sees_itself(self):
        return True

    def extent(self):
        return self.left, self.right

    def simplify(self, queries, keys):
        if self.left < keys - 1:
            return self
        return NoMask() if self.right >= queries - 1 else Causal() if self.right == 0 else self


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Only real keys are seen: valid (B, M), bool, False where a key is padding."""

    valid: Tensor

    def __post_init__(self):
        if self.valid.dim() != 2 or self.valid.dtype != torch.bool:
            shape = tuple(self.valid.shape)
            raise ValueError(f"Padding needs valid (batch, keys) of bool, got {shape} of {self.valid.dtype}")

    def check(self, batch, queries, keys):
        _same("Padding", tuple(self.valid.shape), (batch, keys))

    def allows(self, b, h, i, j):
        return self.valid[b, j]


@dataclass(frozen=True, eq=False)
class Lengths(Mask):
    """Padding at the right end: only the first lengths (B,) keys of each batch entry are real."""

    lengths: Tensor

    def __post_init__(self):
        if self.lengths.dim() != 1 or self.lengths.is_floating_point() or self.lengths.dtype == torch.bool:
            shape = tuple(self.lengths.shape)
            raise ValueError(f"Lengths needs whole numbers (batch,), got {shape} of {self.lengths.dtype}")

    def check(self, batch, queries, keys):
        _same("Lengths", tuple(self.lengths.shape), (batch,))

    def allows(self, b, h, i, j):
        return j < self.lengths[b]


@dataclass(frozen=True, eq=False)
class LeftPadding(Mask):
    """Padding at the left end: keys are real from starts (B,) on. Padding sees itself, so its values stay finite."""

    starts: Tensor

    def sees_itself(self):
        return True

    def last_sees_all(self):
        return True

    def check(self, batch, queries, keys):
        _same("LeftPadding", tuple(self.starts.shape), (batch,))

    def allows(self, b, h, i, j):
        return (j >= self.starts[b]) | (j == i)


@dataclass(frozen=True, eq=False)
class Documents(Mask):
    """Tokens of one document see each other: ids (B, M), a whole number for each token that names its document.

    Several short texts are packed into one row so; with Causal() each is read as if it stood alone.
    """

    ids: Tensor

    def __post_init__(self):
        if self.ids.dim() != 2 or self.ids.is_floating_point():
            raise ValueError(f"Documents needs ids (batch, keys), got {tuple(self.ids.shape)} of {self.ids.dtype}")

    def check(self, batch, queries, keys):
        _same("Documents", tuple(self.ids.shape), (batch, keys))

    def sees_itself(self):
        return True

    def allows(self, b, h, i, j):
        return self.ids[b, i] == self.ids[b, j]


@dataclass(frozen=True, eq=False)
class Prefix(Mask):
    """Everyone sees the first `length` keys (Raffel et al. 2020: a prefix language model is Causal() | Prefix(n))."""

    length: int

    def __post_init__(self):
        if self.length < 0:
            raise ValueError(f"Prefix needs length >= 0, got {self.length}")

    def allows(self, b, h, i, j):
        return j < self.length


@dataclass(frozen=True, eq=False)
class Grid(Mask):
    """Tokens are the places of a grid, row by row, and see those at most `radius` rows and columns away."""

    height: int
    width: int
    radius: int

    def __post_init__(self):
        if self.height < 1 or self.width < 1 or self.radius < 0:
            raise ValueError(f"Grid needs height, width >= 1 and radius >= 0, got {self}")

    def check(self, batch, queries, keys):
        _same("Grid", (self.height * self.width,), (keys,))

    def allows(self, b, h, i, j):
        rows = i // self.width - j // self.width
        columns = i % self.width - j % self.width
        return (rows.abs() <= self.radius) & (columns.abs() <= self.radius)

    def extent(self):
        return (self.width + 1) * self.radius, (self.width + 1) * self.radius


@dataclass(frozen=True, eq=False)
class Blocks(Mask):
    """Sparse attention in blocks of `size` tokens: table (n, n), bool, says which block sees which."""

    size: int
    table: Tensor

    def __post_init__(self):
        if self.size < 1 or self.table.dim() != 2 or self.table.dtype != torch.bool:
            shape = tuple(self.table.shape)
            raise ValueError(
                f"Blocks needs size >= 1 and a table (blocks, blocks) of bool, got {self.size} and {shape}"
            )

    def check(self, batch, queries, keys):
        blocks = -(-keys // self.size)
        _same("Blocks", tuple(self.table.shape), (blocks, blocks))

    def allows(self, b, h, i, j):
        return self.table[i // self.size, j // self.size]


def bigbird(length: int, size: int, *, everywhere: int = 1, window: int = 1, random: int = 1, seed: int = 0) -> Blocks:
    """BigBird's pattern (Zaheer et al. 2020) for `length` tokens in blocks of `size`.

    Args:
        everywhere: the first so many blocks see, and are seen by, all.
        window: a block sees so many blocks on either side.
        random: and so many others, drawn by `seed`.
    """
    n = -(-length // size)
    place = torch.arange(n)
    table = (place[:, None] - place).abs() <= window
    table |= (place[:, None] < everywhere) | (place < everywhere)
    draws = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)).masked_fill(table, -1.0)
    chosen = draws.topk(min(random, n), dim=-1)
    return Blocks(size, table | torch.zeros_like(table).scatter(1, chosen.indices, chosen.values > 0))


@dataclass(frozen=True, eq=False)
class Dense(Mask):
    """The table itself: allowed (B|1, H|1, L, M), bool."""

    allowed: Tensor

    def __post_init__(self):
        if self.allowed.dim() != 4 or self.allowed.dtype != torch.bool:
            shape = tuple(self.allowed.shape)
            raise ValueError(f"Dense needs (B|1, H|1, L, M) of bool, got {shape} of {self.allowed.dtype}")

    def check(self, batch, queries, keys):
        _same("Dense", tuple(self.allowed.shape[-2:]), (queries, keys))

    def allows(self, b, h, i, j):
        B, H, L, M = self.allowed.shape
        return self.allowed[b if B > 1 else b * 0, h if H > 1 else h * 0, i - (M - L), j]

    def slice_heads(self, first, last):
        return self if self.allowed.shape[1] == 1 else Dense(self.allowed[:, first:last])


@dataclass(frozen=True, eq=False)
class CombinedMask(Mask):
    """Two masks as one; a subclass says how."""

    first: Mask
    second: Mask

    def check(self, batch, queries, keys):
        self.first.check(batch, queries, keys)
        self.second.check(batch, queries, keys)

    def slice_heads(self, first, last):
        return type(self)(self.first.slice_heads(first, last), self.second.slice_heads(first, last))

    def remembering(self):
        both = type(self)(self.first.remembering(), self.second.remembering())  # `simplify` may leave one of them
        return Mask.remembering(both)


@dataclass(frozen=True, eq=False)
class And(CombinedMask):
    """Both masks allow it."""

    def allows(self, b, h, i, j):
        return self.first.allows(b, h, i, j) & self.second.allows(b, h, i, j)

    def extent(self):
        (left, right), (left2, right2) = self.first.extent(), self.second.extent()
        return min(left, left2), min(right, right2)

    def sees_itself(self):
        return self.first.sees_itself() and self.second.sees_itself()

    def last_sees_all(self):
        return self.first.last_sees_all() and self.second.last_sees_all()

    def simplify(self, queries, keys):
        match self.first.simplify(queries, keys), self.second.simplify(queries, keys):
            case Causal(), Causal():
                return self.first.simplify(queries, keys)
            case (Causal(), Window(left, _)) | (Window(left, _), Causal()):  # a window can be causal itself
                return Window(left, 0)
            case first, second if (first, second) != (self.first, self.second):
                return first & second
        return self


@dataclass(frozen=True, eq=False)
class Or(CombinedMask):
    """Either mask allows it."""

    def allows(self, b, h, i, j):
        return self.first.allows(b, h, i, j) | self.second.allows(b, h, i, j)

    def extent(self):
        (left, right), (left2, right2) = self.first.extent(), self.second.extent()
        return max(left, left2), max(right, right2)

    def sees_itself(self):
        return self.first.sees_itself() or self.second.sees_itself()


@dataclass(frozen=True, eq=False)
class Not(Mask):
    """The inverse of a mask."""

    hidden: Mask

    def check(self, batch, queries, keys):
        self.hidden.check(batch, queries, keys)

    def allows(self, b, h, i, j):
        return ~self.hidden.allows(b, h, i, j)

    def slice_heads(self, first, last):
        return Not(self.hidden.slice_heads(first, last))


def _same(name: str, made_for: tuple[int, ...], met: tuple[int, ...]) -> None:
    if made_for != met:
        raise ValueError(f"{name} was made for {made_for} and met attention over {met}")
