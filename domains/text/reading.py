"""A model that reads token after token: what it has read is kept, so a new token costs one step.

Rows of a batch need not be of one length. Under attention they end at the same column: a shorter one begins later,
behind columns that it does not see. A recurrent mixer has no columns: each row is read by itself, and the states are
joined.

Shapes: B rows · L new tokens · M columns · C width · H heads · D head width · V vocabulary · O orders of recall
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.cache import Cache, KVCache, RecurrentState, WindowCache
from core.config import Mixer
from core.kernels.sdpa import sdpa
from core.layers import TransformerBlock
from core.masks import Causal, Everything, Mask, Padding
from core.mixers.softmax import MultiHeadAttention
from core.positions import Rotation
from domains.adapter import Batch, Tokens, to_device
from domains.text.adapter import Adapter

Word = tuple[int, list[int]]  # a token, and what each order recalls at it
FAR = -1e30  # added to a score, this leaves a weight of 0, and a finite number where all are so far


class Reader(ABC):
    """Reads rows of words.

    Attributes:
        columns: words of the longest row, so far.
    """

    cache: Cache[Any]

    def __init__(self, adapter: Adapter):
        self.adapter, self.columns = adapter, 0

    @abstractmethod
    def begin(self, rows: Sequence[Sequence[Word]]) -> Tensor:
        """Read the first words of all rows. Returns scores (B, 1, V) of the next."""

    @abstractmethod
    def step(self, rows: Sequence[Sequence[Word]]) -> Tensor:
        """Read L more words of every row. Returns scores (B, L, V) of what follows each."""

    def crop(self, columns: int) -> None:
        """Forget all after the first so many columns."""
        self.cache.crop(columns)
        self.columns = columns

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""
        self.cache.reorder(torch.tensor(rows, device=self.adapter.device))


class Attending(Reader):
    """The Transformer with softmax attention, with everything that is the same at each step done once.

    What positions add to a token, and how they turn its queries and keys, are tables. One new token sees all that is
    kept, so it needs no mask; padding is hidden by what is added to the scores.
    """

    def __init__(self, adapter: Adapter, capacity: int):
        super().__init__(adapter)
        trunk, device = adapter.transformer, adapter.device
        self.blocks = [block for block in trunk.blocks if isinstance(block, TransformerBlock)]
        self.mixers = [block.mixer for block in self.blocks if isinstance(block.mixer, MultiHeadAttention)]
        mixer, depth = self.mixers[0], len(self.blocks)
        self.at = torch.arange(capacity, device=device)[:, None]  # (M, 1)
        self.added = trunk.position.add(torch.zeros(1, capacity, trunk.config.dim, device=device), self.at)[0]  # (M, C)
        rotation = trunk.position.rotations(self.at, 1)[0]
        self.turns = None if rotation is None else _turns(rotation, capacity, mixer.head_dim, device)
        self.within, self.scale = mixer.within, mixer.head_dim**-0.5
        self.window = trunk.config.window if trunk.config.mixer is Mixer.window else None
        self.cache = KVCache(depth, capacity) if self.window is None else WindowCache(depth, self.window)
        self.starts: Tensor | None = None  # (B,): the column where each row begins, unless all begin at 0

    def begin(self, rows):
        longest = max(map(len, rows))
        starts = [longest - len(row) for row in rows]
        if any(starts):
            self.starts = torch.tensor(starts, device=self.adapter.device)
        padded = [[row[0]] * start + list(row) for start, row in zip(starts, rows, strict=True)]
        return self.step(padded)[:, -1:]

    def step(self, rows):
        tokens, at, new = self.enter(rows)
        turn = None if self.turns is None else _turn(*(table[at] for table in self.turns))
        mask, bias = self.visible(tokens.x.shape[1], new)
        x = tokens.x
        for block, mixer, kept in zip(self.blocks, self.mixers, self.cache.blocks, strict=True):
            q, k, v = mixer.project(block.norm1(x), turn)
            k, v = kept.append(k, v)  # (B, G, M, D)
            x = x + block.scale1(mixer.join(sdpa(q, k, v, mask, bias, self.scale)))
            x = x + block.scale2(block.feed_forward(block.norm2(x)))
        return self.leave(x, tokens)

    def enter(self, rows: Sequence[Sequence[Word]]) -> tuple[Tokens, slice | Tensor, int]:
        """New words as the first block sees them, their places (the same for all rows, or (B, L)), and all columns."""
        trunk, old = self.adapter.transformer, self.columns
        tokens = self.adapter.tokens(batch_of(rows, self.adapter))
        self.columns = new = old + len(rows[0])
        at = slice(old, new)
        if self.starts is not None:
            at = (self.at[at, 0] - self.starts[:, None]).clamp(min=0)  # (B, L); padding stands at 0
        return tokens._replace(x=trunk.embed_norm(tokens.x + self.added[at])), at, new

    def leave(self, x: Tensor, tokens: Tokens) -> Tensor:
        """Scores (B, L, V) of what the last block gave."""
        return self.adapter.head(self.adapter.transformer.norm(x), tokens)

    def visible(self, L: int, new: int) -> tuple[Mask, Tensor | None]:
        """The mask of the last L of `new` columns, and what is added to their scores, (B|1, H|1, L, M) or None."""
        first = 0 if self.window is None else max(0, new - L - self.window)
        own = self.adapter.transformer.position.bias(self.at[new - L : new], self.at[first:new])
        bias = None if own is None else own.dense()
        mask = Everything() if L == 1 else Causal() & self.within
        if self.starts is None:
            return mask, bias
        valid = self.at[first:new, 0] >= self.starts[:, None]  # (B, M)
        if L > 1:
            return mask & Padding(valid), bias
        hidden = torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, FAR)[:, None, None]  # (B, 1, 1, M)
        return mask, hidden if bias is None else hidden + bias

    def keep(self, rows):
        super().keep(rows)
        if self.starts is not None:
            self.starts = self.starts[list(rows)]


class Recurrent(Reader):
    """Any other mixer, whose state does not grow."""

    def begin(self, rows):
        read = [RecurrentState(self.adapter.config.depth) for _ in rows]
        scores = [
            self.adapter(batch_of([row], self.adapter), cache=state)[:, -1:]
            for row, state in zip(rows, read, strict=True)
        ]
        self.cache = RecurrentState(self.adapter.config.depth)
        for block, parts in zip(self.cache.blocks, zip(*(state.blocks for state in read), strict=True), strict=True):
            block.keep(0, *map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))
        self.lengths, self.columns = [len(row) for row in rows], max(map(len, rows))
        return torch.cat(scores)

    def step(self, rows):
        batch = batch_of(rows, self.adapter)
        places = torch.tensor(self.lengths)[:, None] + torch.arange(len(rows[0]))  # (B, L)
        self.lengths, self.columns = [n + len(rows[0]) for n in self.lengths], self.columns + len(rows[0])
        return self.adapter(batch | {"places": places.to(self.adapter.device)}, cache=self.cache)

    def keep(self, rows):
        super().keep(rows)
        self.lengths = [self.lengths[row] for row in rows]


class Forgetful(Reader):
    """The definition: every row is read anew, from its beginning, for every word."""

    def begin(self, rows):
        self.rows = [list(row) for row in rows]
        self.columns = max(map(len, rows))
        return torch.cat([self.adapter(batch_of([row], self.adapter))[:, -1:] for row in self.rows])

    def step(self, rows):
        for row, new in zip(self.rows, rows, strict=True):
            row += new
        L = len(rows[0])
        self.columns += L
        return torch.cat([self.adapter(batch_of([row], self.adapter))[:, -L:] for row in self.rows])

    def crop(self, columns):
        self.rows, self.columns = [row[: len(row) - self.columns + columns] for row in self.rows], columns

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows]


def batch_of(rows: Sequence[Sequence[Word]], adapter: Adapter) -> Batch:
    """tokens (B, L), and recalled (B, L, O) for a model that recalls."""
    batch = {"tokens": torch.tensor([[token for token, _ in row] for row in rows])}
    if adapter.orders:
        batch["recalled"] = torch.tensor([[found for _, found in row] for row in rows])
    return to_device(batch, adapter.device)


def _turns(rotation: Rotation, places: int, D: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and ± sin of every angle at each place, (M, D) each: x turned is x · cos + (its halves exchanged) · sin."""
    half = torch.arange(D, device=device) < D // 2
    cos, sin = rotation(half.float().expand(1, 1, places, D))[0, 0].chunk(2, -1)  # (M, D / 2): what (1, 0) turns into
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def _turn(cos: Tensor, sin: Tensor) -> Rotation:
    if cos.dim() == 3:  # (B, L, D): the same for all heads
        cos, sin = cos[:, None], sin[:, None]

    def turn(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([b, a], -1) * sin

    return turn
