"""What a causal model remembers between calls, so that a new token costs one step and not the whole sequence."""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of the tokens seen so far, block by block.

        cache = KVCache(depth, capacity)
        model(x[:, :7], cache=cache); model(x[:, 7:8], cache=cache)      # = model(x[:, :8])

    Args:
        depth: number of blocks.
        capacity: the most tokens that it can hold; memory for them is taken at the first token.
    """

    def __init__(self, depth: int, capacity: int):
        self.blocks = [BlockCache(capacity) for _ in range(depth)]

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.blocks[0].length


class BlockCache:
    """The part of a KVCache that belongs to one block."""

    def __init__(self, capacity: int):
        self.capacity, self.length = capacity, 0
        self.keys = self.values = torch.empty(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
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
