"""A text in three splits, as windows of tokens.

Shapes: B batch · L context · O orders of recall · N tokens of the whole text · P documents
"""

from collections.abc import Sequence

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.text.config import DataConfig, TokenizerKind
from domains.text.corpus import open_corpus
from domains.text.ngram_lookup import recalled

IGNORED = -100  # a target that only gives context: torch's cross-entropy leaves it out
ORDERED = 2**24  # windows of a pass whose order is kept in memory
RECALLED = 2**26  # the longest text, in bytes, that recall accepts


class Data(DomainData):
    """A text whose last part is the test split, and the part before that the validation split, for every seed alike.

    The default is Python's reference prose (`pydoc_data.topics`, which varies with the version of Python): all topics
    in alphabetical order, a newline after each; a tenth of it is the test split, 2 % before that the validation split.

    A training sample is a window of `context` tokens from anywhere in the training part. The samples of the other
    splits are windows of which the last `stride` tokens, half of them by default, are predicted, so that every token of
    the split is predicted exactly once with at least context - stride before it. Context and recall of the first ones
    reach back into the text before the split, as a compressor primed with it would.

    With `packed`, tokens see those of their own document alone, and count their places from its beginning.

    Attributes:
        corpus: tokens, tokenizer, documents.
        bounds: where each split begins and ends, in tokens.
    Raises:
        ValueError: from `setup`, for a context or a stride that does not fit the text, a validation split without text,
            or recall of what is not bytes.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "corpus"):
            return
        L, recall = self.config.context, self.config.recall
        if recall and self.config.tokenizer is not TokenizerKind.bytes:
            raise ValueError(f"data.recall={list(recall)} needs data.tokenizer=bytes; or set data.recall=[]")
        corpus = open_corpus(self.config)
        end = corpus.bounds["train"][1]
        if not 2 <= L <= end - 1:
            raise ValueError(
                f"data.context={L} must lie between 2 and {end - 1}, the tokens to train on but one; "
                "lower it, or give more text"
            )
        if not 1 <= self.stride <= L:
            raise ValueError(f"data.stride={self.stride} must lie between 1 and data.context={L}")
        if corpus.bounds["val"][1] == end:
            raise ValueError(f"data.val={self.config.val:g} leaves no token to validate on; raise it")
        if recall and len(corpus.tokens) > RECALLED:
            raise ValueError(f"a text of {len(corpus.tokens):,} bytes is too long to recall from; set data.recall=[]")
        self.recalled = recalled(np.asarray(corpus.tokens[:]), recall) if recall else None  # (N, O)
        self.corpus, self.bounds = corpus, corpus.bounds

    def spec(self):
        begin, end = self.bounds["train"]
        memory = self.corpus.tokens[begin:end].tobytes().decode("latin-1") if self.config.recall else ""
        return {
            "context": self.config.context,
            "vocabulary": self.corpus.tokenizer.size,
            "tokenizer": self.corpus.tokenizer.spec(),
            "orders": list(self.config.recall),
            "memory": memory,  # one character a byte, for JSON
        }

    def size(self, split):
        begin, end = self.bounds[split]
        if split == "train":
            return -(-(end - begin - self.config.context) // self._spread)
        return -(-(end - begin) // self.stride)

    def opening(self, split: str) -> int:
        """Where the first document begins that begins in a split; where the split begins if none does."""
        begin, end = self.bounds[split]
        starts = self.corpus.documents
        at = int(starts[min(starts.searchsorted(begin), len(starts) - 1)])
        return at if begin <= at < end else begin

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """tokens (B, L), recalled (B, L, O), targets (B, L): the next tokens, IGNORED where they only give context.

        With `packed` also documents and places (B, L): which document a token belongs to, and where in it.
        """
        L, stride, spread = self.config.context, self.stride, self._spread
        begin, end = self.bounds[split]
        chosen = np.asarray(indices)
        if split == "train":
            offsets = np.zeros_like(chosen) if rngs is None or spread == 1 else _drawn(rngs, spread)
            first = starts = np.minimum(begin + chosen * spread + offsets, end - L - 1)
        else:
            first = begin + chosen * stride
            starts = np.minimum(first + stride, end) - L - 1
        rows = np.stack([self.corpus.tokens[start : start + L + 1] for start in starts])  # (B, L + 1)
        at = starts[:, None] + np.arange(L)  # (B, L)
        targets = np.where(at + 1 >= first[:, None], rows[:, 1:].astype(np.int64), IGNORED)
        arrays = {"tokens": rows[:, :-1], "recalled": self._recalled(at), "targets": targets}
        if self.config.packed:
            documents = self.corpus.documents.searchsorted(at, "right") - 1  # (B, L)
            arrays |= {"documents": documents, "places": at - np.maximum(self.corpus.documents[documents], at[:, :1])}
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def _recalled(self, at: np.ndarray) -> np.ndarray:
        return np.empty((*at.shape, 0), np.int16) if self.recalled is None else self.recalled[at]

    @property
    def stride(self) -> int:
        """How many tokens of a window are predicted in evaluation."""
        return self.config.context // 2 if self.config.stride is None else self.config.stride

    @property
    def _spread(self) -> int:
        """A pass takes one window from so many neighbours: all of them, unless the text is long."""
        begin, end = self.bounds["train"]
        return -(-(end - begin) // ORDERED)


def _drawn(rngs: Rngs, spread: int) -> np.ndarray:
    return np.array([rng.integers(spread) for rng in rngs])
