"""What a text has already said: the byte that followed when its last n bytes stood there before.

A transformer sees one context; a text may repeat a passage from much further back. For a few orders n, every byte is
therefore accompanied by the byte that came after the last earlier occurrence of the n bytes that end with it. It is
the string matching of PAQ (Mahoney 2002) and of ∞-gram (Liu et al. 2024), handed to the model as input: the model
learns when to trust it. Only earlier bytes are read, so it is as causal as the model.

Shapes: N bytes of the text · O orders
"""

from collections.abc import Sequence

import numpy as np

NOTHING = 256  # recalled where the n bytes are new


def recalled(text: np.ndarray, orders: Sequence[int]) -> np.ndarray:
    """What every byte of `text` recalls.

    Args:
        text: (N,), uint8.
        orders: how many bytes have to agree, in increasing order.
    Returns:
        (N, O), int16: a byte, or NOTHING.
    """
    _check(orders)
    out = np.full((len(text), len(orders)), NOTHING, np.int16)
    for column, n in enumerate(orders):
        key = _keys(text, n)
        order = np.argsort(key, kind="stable")  # equal keys side by side, in the order of the text
        again = np.flatnonzero(key[order[1:]] == key[order[:-1]])
        out[order[again + 1], column] = text[order[again] + 1]
    return out


class Memory:
    """The same, byte by byte, for text that is still being written.

    Args:
        text: what has been written before.
        orders: as in `recalled`.
    """

    def __init__(self, text: bytes, orders: Sequence[int]):
        _check(orders)
        self.text, self.orders = bytearray(text), orders

    def append(self, byte: int) -> list[int]:
        """Write one more byte; return what it recalls, one value for each order."""
        text = self.text
        text.append(byte)
        found, end = [NOTHING] * len(self.orders), len(text) - 1
        for column, n in enumerate(self.orders):
            start = text.rfind(text[-n:], 0, end) if n <= len(text) else -1
            if start < 0:
                break  # what is new at this order is new at every higher one
            end = start + n  # and a higher order cannot have been met later than this one
            found[column] = text[end]
        return found


def _keys(text: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of the n bytes that end at each place: FNV-1a. Among 10⁶ of them two collide with p = 3·10⁻⁸."""
    key = np.full(len(text), 0xCBF29CE484222325, np.uint64)
    for back in range(n - 1, -1, -1):
        symbol = np.zeros(len(text), np.uint64)  # 0: before the beginning
        symbol[back:] = text[: len(text) - back].astype(np.uint64) + np.uint64(1)
        key = (key ^ symbol) * np.uint64(0x100000001B3)
    return key


def _check(orders: Sequence[int]) -> None:
    if any(n < 1 for n in orders) or list(orders) != sorted(set(orders)):
        raise ValueError(f"data.recall={list(orders)} must be whole numbers of at least 1, in increasing order")
