"""Decoding with a cache, so that a new token costs one step.

Rows of a batch may differ in length. They end at the same column: a shorter row begins later, behind padding.

Shapes: B rows · L new tokens · V vocabulary · O n-gram orders
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from domains.adapter import Batch
from domains.text.adapter import Adapter

Token = tuple[int, list[int]]  # its number, and its n-gram matches


class Decoder(ABC):
    """Reads the tokens of several rows, and returns logits of the next ones."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Number of tokens of the longest row so far."""

    @abstractmethod
    def prefill(self, rows: Sequence[Sequence[Token]]) -> Tensor:
        """Read the first tokens of all rows. Return logits (B, 1, V) of the next."""

    @abstractmethod
    def step(self, rows: Sequence[Sequence[Token]]) -> Tensor:
        """Read L more tokens of every row. Return logits (B, L, V) of what follows each."""

    @abstractmethod
    def crop(self, length: int) -> None:
        """Remove the last tokens, down to this length."""

    @abstractmethod
    def select_rows(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""


class CachedDecoder(Decoder):
    """A decoder with the Transformer's cache, for at most `capacity` tokens."""

    def __init__(self, adapter: Adapter, capacity: int):
        self.adapter, self.cache = adapter, adapter.transformer.make_cache(capacity)

    @property
    def length(self):
        return self.cache.length

    def prefill(self, rows):
        longest = max(map(len, rows))
        starts = [longest - len(row) for row in rows]
        if any(starts):
            self.cache.starts = torch.tensor(starts, device=self.adapter.device)
        padded = [[row[0]] * start + list(row) for start, row in zip(starts, rows, strict=True)]
        return self.adapter(make_batch(padded, self.adapter), cache=self.cache, last=1)

    def step(self, rows):
        return self.adapter(make_batch(rows, self.adapter), cache=self.cache)

    def crop(self, length):
        self.cache.crop(length)

    def select_rows(self, rows):
        self.cache.reorder(torch.tensor(rows, device=self.adapter.device))


class UncachedDecoder(Decoder):
    """The reference decoder: every row is read again from its beginning, for every token."""

    def __init__(self, adapter: Adapter):
        self.adapter, self.rows = adapter, list[list[Token]]()

    @property
    def length(self):
        return max(map(len, self.rows))

    def prefill(self, rows):
        self.rows = [list(row) for row in rows]
        return self._read(1)

    def step(self, rows):
        self.rows = [[*row, *new] for row, new in zip(self.rows, rows, strict=True)]
        return self._read(len(rows[0]))

    def _read(self, last: int) -> Tensor:
        return torch.cat([self.adapter(make_batch([row], self.adapter))[:, -last:] for row in self.rows])

    def crop(self, length):
        removed = self.length - length
        self.rows = [row[: len(row) - removed] for row in self.rows]

    def select_rows(self, rows):
        self.rows = [self.rows[row] for row in rows]


def make_batch(rows: Sequence[Sequence[Token]], adapter: Adapter) -> Batch:
    """Return tokens (B, L), and ngram_matches (B, L, O) for a model with n-gram lookup."""
    batch = {"tokens": torch.tensor([[token for token, _ in row] for row in rows], device=adapter.device)}
    if adapter.ngram_orders:
        batch["ngram_matches"] = torch.tensor([[found for _, found in row] for row in rows], device=adapter.device)
    return batch
