"""Bytes of text in three splits.

Shapes: B batch · L context · O orders of recall · N bytes of the whole text
"""

from collections.abc import Sequence
from pydoc_data.topics import topics

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.text.config import DataConfig
from domains.text.memory import recalled

BYTES = 256  # the vocabulary
IGNORED = -100  # a target that only gives context: torch's cross-entropy leaves it out


class Data(DomainData):
    """Python's reference prose (`pydoc_data.topics`, which varies with the version of Python).

    All topics in alphabetical order, a newline after each, are one text. Its last tenth is the test split, the 2 %
    before are the validation split, the rest is for training; splits are the same for every seed.

    A training sample is a window of `context` bytes from anywhere in the training part. The samples of the other splits
    are windows that overlap by half: each predicts its last half, so that every byte of the split is predicted exactly
    once with at least half a context before it. Context and recall of the first ones reach back into the text before
    the split, as a compressor primed with it would.

    Attributes:
        text: (N,), uint8.
        bounds: where each split begins and ends.
        topics: (name, begin, end) of each topic.
    Raises:
        ValueError: from `setup`, for a context that does not fit the text.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "text"):
            return
        L = self.config.context
        parts = [(name, (topics[name] + "\n").encode()) for name in sorted(topics)]
        ends = np.cumsum([len(part) for _, part in parts]).tolist()
        text = np.frombuffer(b"".join(part for _, part in parts), np.uint8)
        N = len(text)
        test, val = N - N // 10, N - N // 10 - N // 50
        if not 2 <= L <= val - 1:
            raise ValueError(f"data.context={L} must lie between 2 and {val - 1}, the bytes to train on but one")
        self.bounds = {"train": (0, val), "val": (val, test), "test": (test, N)}
        self.topics = [(name, end - len(part), end) for (name, part), end in zip(parts, ends, strict=True)]
        self.recalled = recalled(text, self.config.recall)  # (N, O)
        self.text = text

    def spec(self):
        begin, end = self.bounds["train"]
        return {
            "context": self.config.context,
            "vocabulary": BYTES,
            "orders": list(self.config.recall),
            "memory": self.text[begin:end].tobytes().decode("latin-1"),  # one character a byte, for JSON
        }

    def size(self, split):
        begin, end = self.bounds[split]
        if split == "train":
            return end - begin - self.config.context
        return -(-(end - begin) // self._stride)

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """tokens (B, L), recalled (B, L, O), targets (B, L): the next bytes, IGNORED where they only give context."""
        L, stride = self.config.context, self._stride
        begin, end = self.bounds[split]
        chosen = np.asarray(indices)
        if split == "train":
            first = starts = begin + chosen
        else:
            first = begin + chosen * stride
            starts = np.minimum(first + stride, end) - L - 1
        at = starts[:, None] + np.arange(L)  # (B, L)
        targets = np.where(at + 1 >= first[:, None], self.text[at + 1].astype(np.int64), IGNORED)
        arrays = {"tokens": self.text[at], "recalled": self.recalled[at], "targets": targets}
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    @property
    def _stride(self) -> int:
        return self.config.context // 2
