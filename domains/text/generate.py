"""Text from a language model, one byte at a time.

Shapes: L bytes of the window · O orders of recall
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.cache import KVCache
from domains.adapter import Batch, to_device
from domains.text.adapter import Adapter
from domains.text.memory import Memory


@dataclass(frozen=True)
class Sampling:
    """How the next byte is chosen.

    Attributes:
        length: bytes to write.
        temperature: scores are divided by it; 0 takes the likeliest byte.
        top_k: only so many of the likeliest bytes are drawn from; all of them if None.
        seed: the same seed gives the same text on the same machine.
    Raises:
        ValueError: for values that cannot be.
    """

    length: int = 600
    temperature: float = 0.7
    top_k: int | None = 40
    seed: int = 0

    def __post_init__(self):
        if self.length < 1 or self.temperature < 0 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(f"sampling needs length >= 1, temperature >= 0 and top_k >= 1, got {self}")


@torch.inference_mode()
def generate(adapter: Adapter, prompt: bytes, how: Sampling, *, cached: bool = True) -> Iterator[int]:
    """The bytes that follow `prompt`, as they are made.

    The model sees a window of at most its context. When that is full, the window restarts from its last half, computed
    anew, so the text does not depend on `cached`: keys and values are kept from byte to byte, or all computed again.

    Raises:
        ValueError: for an empty prompt.
    """
    if not prompt:
        raise ValueError("the prompt is empty; give at least one character to go on from")
    adapter.eval()
    L = adapter.context
    draw = torch.Generator().manual_seed(how.seed)
    memory = Memory(adapter.memory + prompt[:-L], adapter.orders)
    window = [(byte, memory.append(byte)) for byte in prompt[-L:]]
    cache = KVCache(adapter.config.depth, L)
    for _ in range(how.length):
        if len(window) > L:
            window, cache = window[-(L // 2) :], KVCache(adapter.config.depth, L)
        new = to_device(_batch(window[cache.length :]), adapter.device)
        scores = adapter(new, cache=cache if cached else None)[0, -1]  # (256,)
        byte = choose(scores.float().cpu(), how, draw)
        window.append((byte, memory.append(byte)))
        yield byte


def choose(scores: Tensor, how: Sampling, draw: torch.Generator) -> int:
    """One byte from the model's scores (256,) for it."""
    if how.temperature == 0:
        return int(scores.argmax())
    if how.top_k is not None and how.top_k < len(scores):
        lowest = scores.topk(how.top_k).values[-1]
        scores = scores.masked_fill(scores < lowest, float("-inf"))
    return int(torch.multinomial((scores / how.temperature).softmax(-1), 1, generator=draw))


def _batch(window: list[tuple[int, list[int]]]) -> Batch:
    recalled = torch.tensor([found for _, found in window], dtype=torch.long)  # (L, O)
    return {"bytes": torch.tensor([[byte for byte, _ in window]]), "recalled": recalled[None]}
