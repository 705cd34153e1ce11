"""A text in three splits, as windows of tokens.

Shapes: B batch · L context · O n-gram orders · N tokens of the whole text · P documents
"""

from collections.abc import Sequence

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.text.config import DataConfig, TokenizerKind
from domains.text.corpus import open_corpus
from domains.text.ngram_lookup import ngram_matches

IGNORE_INDEX = -100  # a target that is context only: the default of torch's cross-entropy
MAX_SHUFFLED_WINDOWS = 2**24  # whose order is kept in memory
MAX_NGRAM_TEXT = 2**26  # the longest text, in bytes, that n-gram lookup accepts


class Data(DomainData):
    """A text whose last part is the test split, and the part before that the validation split, for every seed alike.

    The default is Python's reference prose (`pydoc_data.topics`, which varies with the version of Python): all topics
    in alphabetical order, a newline after each; a tenth of it is the test split, 2 % before that the validation split.

    A training sample is a window of `context` tokens from anywhere in the training part. The samples of the other
    splits are windows of which the last `stride` tokens, half of them by default, are predicted, so that every token of
    the split is predicted exactly once with at least context - stride before it. Context and n-gram matches of the
    first windows reach back into the text before the split, as a compressor primed with it would.

    With `packed`, tokens attend to their own document alone, and count positions from its beginning.

    Attributes:
        corpus: tokens, tokenizer, documents.
        bounds: where each split begins and ends, in tokens.
    Raises:
        ValueError: from `setup`, for a context or a stride that does not fit the text, a validation split without text,
            or n-gram lookup with another tokenizer than bytes.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "corpus"):
            return
        L, orders = self.config.context, self.config.ngram_lookup
        if orders and self.config.tokenizer is not TokenizerKind.bytes:
            raise ValueError(
                f"data.ngram_lookup={list(orders)} needs data.tokenizer=bytes; or set data.ngram_lookup=[]"
            )
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
        if orders and len(corpus.tokens) > MAX_NGRAM_TEXT:
            raise ValueError(
                f"a text of {len(corpus.tokens):,} bytes is too long for n-gram lookup; set data.ngram_lookup=[]"
            )
        self.ngram_matches = ngram_matches(np.asarray(corpus.tokens[:]), orders) if orders else None  # (N, O)
        self.corpus, self.bounds = corpus, corpus.bounds

    def spec(self):
        begin, end = self.bounds["train"]
        ngram_text = self.corpus.tokens[begin:end].tobytes().decode("latin-1") if self.config.ngram_lookup else ""
        return {
            "context": self.config.context,
            "vocab_size": self.corpus.tokenizer.vocab_size,
            "tokenizer": self.corpus.tokenizer.spec(),
            "ngram_orders": list(self.config.ngram_lookup),
            "ngram_text": ngram_text,  # one character a byte, for JSON
        }

    def size(self, split):
        begin, end = self.bounds[split]
        if split == "train":
            return -(-(end - begin - self.config.context) // self._window_step)
        return -(-(end - begin) // self.stride)

    def first_document_start(self, split: str) -> int:
        """Return where the first document begins that begins in a split; the beginning of the split if none does."""
        begin, end = self.bounds[split]
        starts = self.corpus.document_starts
        at = int(starts[min(starts.searchsorted(begin), len(starts) - 1)])
        return at if begin <= at < end else begin

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """Return tokens (B, L), ngram_matches (B, L, O), targets (B, L): the next tokens, IGNORE_INDEX for context
        only.

        With `packed` also documents and positions (B, L): the document of a token, and its position there.
        """
        L, stride, step = self.config.context, self.stride, self._window_step
        begin, end = self.bounds[split]
        numbers = np.asarray(indices)
        if split == "train":
            offsets = np.zeros_like(numbers) if rngs is None or step == 1 else _draw_offsets(rngs, step)
            first = starts = np.minimum(begin + numbers * step + offsets, end - L - 1)
        else:
            first = begin + numbers * stride
            starts = np.minimum(first + stride, end) - L - 1
        rows = np.stack([self.corpus.tokens[start : start + L + 1] for start in starts])  # (B, L + 1)
        positions = starts[:, None] + np.arange(L)  # (B, L)
        targets = np.where(positions + 1 >= first[:, None], rows[:, 1:].astype(np.int64), IGNORE_INDEX)
        arrays = {"tokens": rows[:, :-1], "ngram_matches": self._ngram_matches(positions), "targets": targets}
        if self.config.packed:
            documents = self.corpus.document_starts.searchsorted(positions, "right") - 1  # (B, L)
            arrays |= {
                "documents": documents,
                "positions": positions - np.maximum(self.corpus.document_starts[documents], positions[:, :1]),
            }
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def _ngram_matches(self, positions: np.ndarray) -> np.ndarray:
        return (
            np.empty((*positions.shape, 0), np.int16) if self.ngram_matches is None else self.ngram_matches[positions]
        )

    @property
    def stride(self) -> int:
        """Number of tokens of a window that are predicted in evaluation."""
        return self.config.context // 2 if self.config.stride is None else self.config.stride

    @property
    def _window_step(self) -> int:
        """A pass takes one window of so many neighbours: all of them, unless the text is long."""
        begin, end = self.bounds["train"]
        return -(-(end - begin) // MAX_SHUFFLED_WINDOWS)


def _draw_offsets(rngs: Rngs, step: int) -> np.ndarray:
    return np.array([rng.integers(step) for rng in rngs])
