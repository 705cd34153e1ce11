"""N-gram lookup: the byte that followed when the last n bytes of a text occurred before.

A transformer sees one context; a text may repeat a passage from much further back. So every byte comes with the byte
that followed the last earlier occurrence of the n bytes that end with it, for a few orders n. This is the string
matching of PAQ (Mahoney 2002) and of ∞-gram (Liu et al. 2024), as an input of the model: training shows how far to rely
on it. Only earlier bytes are read, so it is as causal as the model.

Shapes: N bytes of the text · O orders
"""

from collections.abc import Sequence

import numpy as np

NO_MATCH = 256  # where the n bytes are new


def ngram_matches(text: np.ndarray, orders: Sequence[int]) -> np.ndarray:
    """Return the byte that each byte of `text` is followed by, if its n-gram occurred before.

    Args:
        text: (N,), uint8.
        orders: the lengths n, in increasing order.
    Returns:
        (N, O), int16: a byte, or NO_MATCH.
    """
    _check_orders(orders)
    out = np.full((len(text), len(orders)), NO_MATCH, np.int16)
    for o, n in enumerate(orders):
        key = _hashes(text, n)
        order = np.argsort(key, kind="stable")  # equal keys side by side, in the order of the text
        again = np.flatnonzero(key[order[1:]] == key[order[:-1]])
        out[order[again + 1], o] = text[order[again] + 1]
    return out


class NgramLookup:
    """`ngram_matches` byte by byte, for text that still grows.

    Args:
        text: the text so far.
        orders: as in `ngram_matches`.
    """

    def __init__(self, text: bytes, orders: Sequence[int]):
        _check_orders(orders)
        self.text, self.orders = bytearray(text), orders

    def append(self, byte: int) -> list[int]:
        """Append one byte; return its match at each order."""
        text = self.text
        text.append(byte)
        found, end = [NO_MATCH] * len(self.orders), len(text) - 1
        for o, n in enumerate(self.orders):
            start = text.rfind(text[-n:], 0, end) if n <= len(text) else -1
            if start < 0:
                break  # a new n-gram is new at every higher order, too
            end = start + n  # a higher order cannot occur later than this one
            found[o] = text[end]
        return found


def _hashes(text: np.ndarray, n: int) -> np.ndarray:
    """Return a 64-bit hash of the n bytes that end at each position: FNV-1a. Among 10⁶ two collide with p = 3·10⁻⁸."""
    key = np.full(len(text), 0xCBF29CE484222325, np.uint64)
    for back in range(n - 1, -1, -1):
        symbol = np.zeros(len(text), np.uint64)  # 0: before the beginning
        symbol[back:] = text[: len(text) - back].astype(np.uint64) + np.uint64(1)
        key = (key ^ symbol) * np.uint64(0x100000001B3)
    return key


def _check_orders(orders: Sequence[int]) -> None:
    if any(n < 1 for n in orders) or list(orders) != sorted(set(orders)):
        raise ValueError(f"data.ngram_lookup={list(orders)} must be whole numbers of at least 1, in increasing order")
