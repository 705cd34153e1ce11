"""Whether a tokenizer gives back what it was given: one may lower-case, strip accents, or drop what is unknown."""

import re
from typing import Any

from domains.text.tokenizers import END, Subwords, Tokenizer

COMPARED = (2**18, 2**18, 2**22)  # bytes at most of each split, the last of which is the test split


class RoundTrip:
    """Counts lines that come back changed. Bytes and characters cannot change any.

    Attributes:
        example: the first word that came back changed, and what it became.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.room: list[int] = [*COMPARED]
        self.compared, self.changed, self.example = 0, 0, ""

    def compare(self, text: str, split: int) -> None:
        """Read some text of a split and write it again, unless enough of that split has been."""
        if not isinstance(self.tokenizer, Subwords) or self.room[split] <= 0:
            return
        text = text[: self.room[split]]
        self.room[split] -= len(text)
        lines = [line for line in re.split(f"[\n{END}]", text) if line]
        self.compared += len(lines)
        for line, back in zip(lines, self.tokenizer.round_trip(lines), strict=True):
            if back.removeprefix(" ") != line.removeprefix(" "):  # SentencePiece puts a space before each
                self.changed += 1
                self.example = self.example or difference(line, back)

    def told(self) -> dict[str, Any]:
        return {"lines": self.changed, "compared": self.compared, "example": self.example}


def difference(line: str, back: str) -> str:
    """The first word that differs, beside what it became."""
    pairs = zip(line.split(), back.split(), strict=False)
    a, b = next(((a, b) for a, b in pairs if a != b), (line, back))
    return f"{a[:40]!r} is read as {b[:40]!r}"
