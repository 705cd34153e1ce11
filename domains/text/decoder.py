"""Decoding: what a model keeps of the tokens it has read, so that a new one costs one step.

Rows of a batch need not be of one length. They end at the same column: a shorter one begins later, behind padding.

Shapes: B rows · L new tokens · V vocabulary · O orders of recall
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from domains.adapter import Batch
from domains.text.adapter import Adapter

Token = tuple[int, list[int]]  # its number, and what each order recalls at it


class Decoder(ABC):
    """Reads the tokens of several rows, and gives logits of what follows."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens of the longest row so far."""

    @abstractmethod
    def prefill(self, rows: Sequence[Sequence[Token]]) -> Tensor:
        """Read the first tokens of all rows. Returns logits (B, 1, V) of the next."""

    @abstractmethod
    def step(self, rows: Sequence[Sequence[Token]]) -> Tensor:
        """Read L more tokens of every row. Returns logits (B, L, V) of what follows each."""

    @abstractmethod
    def crop(self, length: int) -> None:
        """Forget the last tokens, down to this length."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""


class CachedDecoder(Decoder):
    """Keeps in the cache of the Transformer what its mixers need, for at most `capacity` tokens."""

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
        return self.adapter(batch_of(padded, self.adapter), cache=self.cache, last=1)

    def step(self, rows):
        return self.adapter(batch_of(rows, self.adapter), cache=self.cache)

    def crop(self, length):
        self.cache.crop(length)

    def keep(self, rows):
        self.cache.reorder(torch.tensor(rows, device=self.adapter.device))


class UncachedDecoder(Decoder):
    """The definition: every row is read anew, from its beginning, for every token."""

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
        return torch.cat([self.adapter(batch_of([row], self.adapter))[:, -last:] for row in self.rows])

    def crop(self, length):
        forgotten = self.length - length
        self.rows = [row[: len(row) - forgotten] for row in self.rows]

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows]


def batch_of(rows: Sequence[Sequence[Token]], adapter: Adapter) -> Batch:
    """tokens (B, L), and recalled (B, L, O) for a model that recalls."""
    batch = {"tokens": torch.tensor([[token for token, _ in row] for row in rows], device=adapter.device)}
    if adapter.orders:
        batch["recalled"] = torch.tensor([[found for _, found in row] for row in rows], device=adapter.device)
    return batch
