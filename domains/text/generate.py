"""Text from a language model, one token at a time.

Shapes: L tokens of the window · V vocabulary · O orders of recall
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.cache import KVCache
from domains.adapter import Batch, to_device
from domains.text.adapter import Adapter
from domains.text.memory import Memory


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        length: tokens to write.
        temperature: scores are divided by it; 0 takes the likeliest token.
        top_k: only so many of the likeliest tokens are drawn from; all of them if None.
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
def generate(adapter: Adapter, prompt: Sequence[int], how: Sampling, *, cached: bool = True) -> Iterator[int]:
    """The tokens that follow `prompt` (bytes, for a model of bytes), as they are made.

    The model sees a window of at most its context. When that is full, the window restarts from its last half, computed
    anew, so the text does not depend on `cached`: keys and values are kept from token to token, or all computed again.

    Raises:
        ValueError: for a prompt that is empty or not of the vocabulary.
    """
    if not prompt:
        raise ValueError("the prompt is empty; give at least one character to go on from")
    if not 0 <= min(prompt) <= max(prompt) < adapter.vocabulary:
        raise ValueError(
            f"the prompt's tokens {min(prompt)} to {max(prompt)} must lie in 0 to {adapter.vocabulary - 1}"
        )
    adapter.eval()
    L = min(adapter.context, len(prompt) + how.length)
    draw = torch.Generator().manual_seed(how.seed)
    recall = Memory(adapter.memory + bytes(prompt[:-L]), adapter.orders).append if adapter.orders else lambda _: []
    window = [(token, recall(token)) for token in prompt[-L:]]
    cache = KVCache(adapter.config.depth, L)
    for _ in range(how.length):
        if len(window) > L:
            window, cache = window[-(L // 2) :], KVCache(adapter.config.depth, L)
        new = to_device(_batch(window[cache.length :]), adapter.device)
        scores = adapter(new, cache=cache if cached else None)[0, -1]  # (V,)
        token = choose(scores.float().cpu(), how, draw)
        window.append((token, recall(token)))
        yield token


def choose(scores: Tensor, how: Sampling, draw: torch.Generator) -> int:
    """One token from the model's scores (V,) for it."""
    if how.temperature == 0:
        return int(scores.argmax())
    if how.top_k is not None and how.top_k < len(scores):
        lowest = scores.topk(how.top_k).values[-1]
        scores = scores.masked_fill(scores < lowest, float("-inf"))
    return int(torch.multinomial((scores / how.temperature).softmax(-1), 1, generator=draw))


def _batch(window: list[tuple[int, list[int]]]) -> Batch:
    recalled = torch.tensor([found for _, found in window], dtype=torch.long)  # (L, O)
    return {"tokens": torch.tensor([[token for token, _ in window]]), "recalled": recalled[None]}
