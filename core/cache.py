"""What a causal model remembers between calls, so that a new token costs one step and not the whole sequence.

    cache = KVCache(depth, capacity=100)        # or WindowCache(depth, window), RecurrentState(depth)
    model(x[:, :7], cache=cache); model(x[:, 7:8], cache=cache)      # = model(x[:, :8])

One interface: `blocks[n]` is what block n keeps, `length` counts the tokens so far, `crop` forgets the last ones,
`reorder` picks batch entries (for beam search).

Shapes: B batch · G key/value heads · L new tokens · M tokens kept · D head width · A axes of position
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


class BlockCache(ABC):
    """What one block keeps.

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
    """The base of all caches: one BlockCache for each block, and where the tokens stand."""

    def __init__(self, blocks: list[Block]):
        self.blocks = blocks
        self.places: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.blocks[0].length

    def see(self, at: Int[Tensor, "*batch L A"]) -> Int[Tensor, "*batch M A"]:
        """Note where new tokens stand, at (L, A) or (B, L, A); return where all that are kept stand."""
        self.places = at if self.places is None else torch.cat([self.places, at], dim=-2)
        return self.places

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        for block in self.blocks:
            block.crop(length)
        if self.places is not None:
            self.places = self.places[..., :length, :]

    def reorder(self, index: Int[Tensor, " n"]) -> None:
        """Batch entry n becomes what entry index[n] was."""
        for block in self.blocks:
            block.reorder(index)
        if self.places is not None and self.places.dim() == 3:
            self.places = self.places[index]


class KeysAndValues(BlockCache):
    """All keys and values, in memory taken at the first token."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.keys = self.values = torch.empty(0)

    def append(
        self, k: Float[Tensor, "B G L D"], v: Float[Tensor, "B G L D"]
    ) -> tuple[Float[Tensor, "B G M D"], Float[Tensor, "B G M D"]]:
        """Add k, v (B, G, L, D) of new tokens; return those of all tokens, (B, G, length, D).

        Raises:
            ValueError: if the capacity is exceeded; nothing is added then.
        """
        new = self.length + k.shape[-2]
        if new > self.capacity:
            raise ValueError(f"{new} tokens do not fit a cache of {self.capacity}")
        if self.length == 0:
            shape = (*k.shape[:-2], self.capacity, k.shape[-1])
            self.keys, self.values = k.new_empty(shape), v.new_empty(shape)
        self.keys[..., self.length : new, :] = k
        self.values[..., self.length : new, :] = v
        self.length = new
        return self.keys[..., :new, :], self.values[..., :new, :]

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
        """What is known after so many more tokens."""
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


class WindowCache(Cache[LastKeysAndValues]):
    """Keys and values of the last `window` tokens, for a causal Window mask that reaches no farther."""

    def __init__(self, depth: int, window: int):
        super().__init__([LastKeysAndValues(window) for _ in range(depth)])
        self.window = window

    def see(self, at):
        seen = super().see(at)
        self.places = seen[..., -self.window :, :]
        return seen


class RecurrentState(Cache[State]):
    """For mixers whose memory does not grow with the text."""

    def __init__(self, depth: int):
        super().__init__([State() for _ in range(depth)])
