"""A check that a tokenizer keeps a text as it is: some lower-case, strip accents, or drop unknown characters."""

import re
from typing import Any

from domains.text.tokenizers import DOCUMENT_SEPARATOR, Subwords, Tokenizer

MAX_COMPARED_BYTES = (2**18, 2**18, 2**22)  # bytes at most of each split, the last of which is the test split


class RoundTrip:
    """Counts lines that change when encoded and decoded. Bytes and characters cannot change any.

    Attributes:
        example: the first word that changed, and what it became.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.remaining: list[int] = [*MAX_COMPARED_BYTES]
        self.compared, self.changed, self.example = 0, 0, ""

    def compare(self, text: str, split: int) -> None:
        """Encode and decode some text of a split, unless enough of that split has been."""
        if not isinstance(self.tokenizer, Subwords) or self.remaining[split] <= 0:
            return
        text = text[: self.remaining[split]]
        self.remaining[split] -= len(text)
        lines = [line for line in re.split(f"[\n{DOCUMENT_SEPARATOR}]", text) if line]
        self.compared += len(lines)
        for line, decoded in zip(lines, self.tokenizer.round_trip(lines), strict=True):
            if decoded.removeprefix(" ") != line.removeprefix(" "):  # SentencePiece puts a space before each
                self.changed += 1
                self.example = self.example or first_difference(line, decoded)

    def summary(self) -> dict[str, Any]:
        """Return the counts and the example as plain values."""
        return {"lines": self.changed, "compared": self.compared, "example": self.example}


def first_difference(line: str, decoded: str) -> str:
    """Return the first word that differs, beside what it became."""
    pairs = zip(line.split(), decoded.split(), strict=False)
    a, b = next(((a, b) for a, b in pairs if a != b), (line, decoded))
    return f"{a[:40]!r} is read as {b[:40]!r}"
