"""Caches of a causal model between calls: a new token costs one step and not the whole sequence.

    cache = model.make_cache(capacity=100)      # a KVCache, a WindowCache or a RecurrentState
    model(x[:, :7], cache=cache); model(x[:, 7:8], cache=cache)      # = model(x[:, :8])

One interface: `blocks[n]` is what block n keeps, `length` counts the tokens so far, `starts` says where each row
begins, `crop` forgets the last tokens, `reorder` picks batch entries (for beam search).

Shapes: B batch · G key/value heads · L new tokens · M tokens kept · D head width · A axes of position
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.masks import LeftPadding, Mask, NoMask
from core.positions import KeyPositions, Positions, Span, as_tensor, span


class BlockCache(ABC):
    """The cache of one block.

    Attributes:
        length: tokens seen so far.
    """

    length: int = 0

    @abstractmethod
    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens. Raises ValueError where that cannot be undone."""

    @abstractmethod
    def reorder(self, index: Int[Tensor, " n"]) -> None:
        """Batch entry n becomes what entry index[n] was: index (B',)."""


Block = TypeVar("Block", bound=BlockCache)


class Cache(Generic[Block]):
    """The base of all caches: one BlockCache for each block, and the positions of the tokens.

    Attributes:
        starts: (B,), the column at which each row of a left-padded batch begins; None if all begin at 0. Set it before
            the first tokens.
    """

    starts: Tensor | None = None

    def __init__(self, blocks: list[Block]):
        self.blocks = blocks
        self.positions: KeyPositions | None = None  # of all tokens that are kept

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.blocks[0].length

    @property
    def kept(self) -> int:
        """Tokens of which keys are kept."""
        return self.length

    def next_positions(self, x: Float[Tensor, "B L C"]) -> Positions:
        """Return the positions of tokens that follow, counted from where each row begins."""
        columns = span(self.length, self.length + x.shape[1], x)
        if self.starts is None:
            return columns
        return (as_tensor(columns)[:, 0] - self.starts[:, None]).clamp(min=0)[..., None]  # (B, L, 1)

    def left_padding(self) -> Mask:
        """Return the mask that hides the columns before each row begins."""
        if self.starts is None:
            return NoMask()
        return LeftPadding(self.starts - (self.length - self.kept))

    def append_positions(self, new: Positions) -> KeyPositions:
        """Note the positions of new tokens; return those of all keys that they can see."""
        old = self.positions
        if old is None:
            self.positions = new
        elif isinstance(new, Span) and isinstance(old, Span) and old.stop == new.start:
            self.positions = Span(old.start, new.stop, new.device)
        else:
            self.positions = torch.cat([as_tensor(old), as_tensor(new)], dim=-2)
        return self.positions

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        forgotten = self.length - length
        for block in self.blocks:
            block.crop(length)
        match self.positions:
            case Span(start, stop, device) if forgotten > 0:
                self.positions = Span(start, stop - forgotten, device)
            case Tensor() if forgotten > 0:
                self.positions = self.positions[..., :-forgotten, :]

    def reorder(self, index: Int[Tensor, " n"]) -> None:
        """Batch entry n becomes what entry index[n] was."""
        for block in self.blocks:
            block.reorder(index)
        if isinstance(self.positions, Tensor) and self.positions.dim() == 3:
            self.positions = self.positions[index]
        if self.starts is not None:
            self.starts = self.starts[index]


class KeysAndValues(BlockCache):
    """All keys and values, in memory that is allocated at the first token."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.keys = self.values = torch.empty(0)

    def check_room(self, tokens: int) -> None:
        """Raise ValueError if so many new tokens exceed the capacity."""
        if self.length + tokens > self.capacity:
            raise ValueError(f"{self.length + tokens} tokens do not fit a cache of {self.capacity}")

    def append(
        self, k: Float[Tensor, "B G L D"], v: Float[Tensor, "B G L D"]
    ) -> tuple[Float[Tensor, "B G M D"], Float[Tensor, "B G M D"]]:
        """Add k, v (B, G, L, D) of new tokens; return those of all tokens, (B, G, length, D).

        Raises:
            ValueError: if the capacity is exceeded; nothing is added then.
        """
        self.check_room(k.shape[-2])
        new = self.length + k.shape[-2]
        if self.length == 0:
            shape = (*k.shape[:-2], self.capacity, k.shape[-1])
            self.keys, self.values = k.new_empty(shape), v.new_empty(shape)
        self.keys.narrow(-2, self.length, k.shape[-2]).copy_(k)
        self.values.narrow(-2, self.length, v.shape[-2]).copy_(v)
        self.length = new
        return self.keys.narrow(-2, 0, new), self.values.narrow(-2, 0, new)

    def crop(self, length):
        self.length = min(length, self.length)

    def reorder(self, index):
        self.keys, self.values = self.keys[index], self.values[index]


class LastKeysAndValues(BlockCache):
    """The keys and values of the last `window` tokens: all that a sliding window needs.

    Source: Beltagy et al. 2020, Jiang et al. 2023 (rolling buffer).
    """

    def __init__(self, window: int):
        self.window = window
        self.keys = self.values = torch.empty(0)

    def append(
        self, k: Float[Tensor, "B G L D"], v: Float[Tensor, "B G L D"]
    ) -> tuple[Float[Tensor, "B G M D"], Float[Tensor, "B G M D"]]:
        """Add k, v (B, G, L, D) of new tokens; return those kept before, and the new ones, (B, G, M, D)."""
        if self.length:
            k, v = torch.cat([self.keys, k], -2), torch.cat([self.values, v], -2)
            new = k.shape[-2] - self.keys.shape[-2]
        else:
            new = k.shape[-2]
        self.length += new
        self.keys, self.values = k[..., -self.window :, :], v[..., -self.window :, :]
        return k, v

    def crop(self, length):
        forgotten = self.length - length
        if forgotten > 0 and self.length > self.window:
            raise ValueError(f"a window of {self.window} cannot go back to token {length}: what it saw then is gone")
        if forgotten > 0:
            kept = self.keys.shape[-2] - forgotten
            self.keys, self.values, self.length = self.keys[..., :kept, :], self.values[..., :kept, :], length

    def reorder(self, index):
        self.keys, self.values = self.keys[index], self.values[index]


class State(BlockCache):
    """Tensors of fixed size, batch first, that a recurrent mixer carries from token to token."""

    def __init__(self):
        self.tensors: tuple[Tensor, ...] = ()

    def keep(self, tokens: int, *tensors: Tensor) -> None:
        """Replace the state by that after so many more tokens."""
        self.tensors = tensors
        self.length += tokens

    def crop(self, length):
        if length < self.length:
            raise ValueError(f"a recurrent state cannot go back from token {self.length} to token {length}")

    def reorder(self, index):
        self.tensors = tuple(tensor[index] for tensor in self.tensors)


class KVCache(Cache[KeysAndValues]):
    """Keys and values of every token so far.

    Args:
        depth: number of blocks.
        capacity: the most tokens that it can hold.
    """

    def __init__(self, depth: int, capacity: int):
        super().__init__([KeysAndValues(capacity) for _ in range(depth)])

    def append_positions(self, new):
        tokens = new.stop - new.start if isinstance(new, Span) else new.shape[-2]
        self.blocks[0].check_room(tokens)  # before anything is noted
        return super().append_positions(new)


class WindowCache(Cache[LastKeysAndValues]):
    """Keys and values of the last `window` tokens, for a causal Window mask of at most that extent."""

    def __init__(self, depth: int, window: int):
        super().__init__([LastKeysAndValues(window) for _ in range(depth)])
        self.window = window

    @property
    def kept(self):
        return min(self.length, self.window)

    def append_positions(self, new):
        seen = super().append_positions(new)
        if isinstance(seen, Span):
            self.positions = Span(max(seen.start, seen.stop - self.window), seen.stop, seen.device)
        else:
            self.positions = seen[..., -self.window :, :]
        return seen


class RecurrentState(Cache[State]):
    """The cache of mixers whose state has a fixed size."""

    def __init__(self, depth: int):
        super().__init__([State() for _ in range(depth)])

    def left_padding(self):
        return NoMask() if self.length else super().left_padding()  # it lies before the first tokens
