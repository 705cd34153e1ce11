"""A protein's family: sequences aligned to it, as A3M and Stockholm files hold them.

Shapes: D sequences · N residues of the first of them, the query
"""

from dataclasses import dataclass
from io import StringIO

import numpy as np
from Bio import AlignIO, SeqIO

from domains.protein.letters import AMBIGUOUS, LETTERS, NUMBERS


@dataclass(frozen=True, eq=False)  # is itself and no other, and so can be a key
class Alignment:
    """Sequences beside the residues of a query, which is the first of them.

    Attributes:
        rows: (D, N) numbers of amino acids, UNKNOWN or GAP, int8.
        insertions: (D, N) how many residues a sequence has between this place and the one before, int16.
    """

    rows: np.ndarray
    insertions: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def parse_a3m(text: str) -> Alignment:
    """An A3M file: sequences as in FASTA, of which lower-case letters are insertions that the query does not have.

    Dots, which A2M writes beside insertions, are skipped; so are lines of comments, as ColabFold writes them.

    Raises:
        ValueError: what is wrong, and in which sequence.
    """
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    try:
        records = [(record.id, str(record.seq)) for record in SeqIO.parse(StringIO(text), "fasta")]
    except ValueError as error:  # text before the first >
        raise ValueError("it holds no line >name, followed by a sequence") from error
    return _aligned([(name, letters.replace(".", "")) for name, letters in records])


def parse_stockholm(text: str) -> Alignment:
    """A Stockholm file, of which the first sequence is the query: columns in which it has a gap are insertions.

    Raises:
        ValueError: what is wrong, and in which sequence.
    """
    if not text.rstrip().endswith("//"):
        raise ValueError("it does not end with //: it is cut short, or no Stockholm file")
    try:
        records = [(r.id, str(r.seq).upper().replace(".", "-")) for r in AlignIO.read(StringIO(text), "stockholm")]
    except (AssertionError, KeyError, IndexError) as error:  # Biopython's, on text after the end
        raise ValueError("it is damaged, or holds several alignments") from error
    kept = [letter != "-" for letter in records[0][1]]
    a3m = [
        (name, "".join(a if keep else a.lower().replace("-", "") for a, keep in zip(row, kept, strict=True)))
        for name, row in records
    ]
    return _aligned(a3m)


def _aligned(records: list[tuple[str, str]]) -> Alignment:
    if not records or not records[0][1]:
        raise ValueError("it holds no sequence")
    if any(letter.islower() or letter == "-" for letter in records[0][1]):
        raise ValueError(f"its first sequence, {records[0][0]!r}, must be the query, without gaps and insertions")
    rows, insertions = [], []
    for name, letters in records:
        codes = np.frombuffer(letters.encode("ascii", "replace"), np.uint8)
        lower = (codes >= ord("a")) & (codes <= ord("z"))
        numbers = NUMBERS[np.where(lower, codes - 32, codes)]
        if (numbers < 0).any():
            wrong = letters[int(np.argmax(numbers < 0))]
            raise ValueError(
                f"{wrong!r} in sequence {name!r} is no amino acid; possible: {LETTERS}, {AMBIGUOUS} for unknown ones, "
                "lower case for insertions and - for gaps"
            )
        before = np.diff(np.flatnonzero(~lower), prepend=-1) - 1
        rows.append(numbers[~lower])
        insertions.append(before)
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(
                f"sequence {name!r} has {len(rows[-1])} aligned residues and gaps, and the query has {len(rows[0])}: "
                "it is cut short, or no alignment"
            )
    return Alignment(np.stack(rows), np.stack(insertions).clip(max=np.iinfo(np.int16).max).astype(np.int16))
