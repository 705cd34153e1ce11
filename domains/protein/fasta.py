"""FASTA files in all their dialects."""

import re
from collections.abc import Iterator

import numpy as np

from domains.protein.alphabet import AMBIGUOUS, AMINO_ACIDS, encode_residues
from domains.protein.read_warnings import ReadWarnings

COMMENTS = (";", "#", "!")
PIR = re.compile(r"(P1|F1|XX);")  # an NBRF record: a description line follows the name
JOIN = re.compile("[:/]")  # between the chains of a complex
COMPLEX = "complexes, of which each chain that differs is read on its own: contacts between chains are not predicted"
NUCLEIC, ENOUGH = set("ACGTUN"), 20  # nucleic acid letters; minimum length for a warning
NO_RECORD = "it holds no line >name, followed by a sequence"


def records(text: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each record, up to the next line that begins with >, without comments.

    Raises:
        ValueError: if there is no record, or text before the first.
    """
    lines = (line.removeprefix("\0") for line in text.split("\n"))  # MMseqs2 writes a zero byte after a record
    text = "\n".join(line for line in lines if not line.startswith(COMMENTS)).strip()
    if not text:
        raise ValueError("it holds no sequence; lines >name are each followed by one")
    if not text.startswith(">"):
        raise ValueError(NO_RECORD)
    for record in re.split(r"^>", text, flags=re.MULTILINE)[1:]:
        header, _, rest = record.partition("\n")
        if PIR.match(header):
            header, rest = header[3:], rest.partition("\n")[2]
        yield (header.split() or [""])[0], rest


def parse_fasta(text: str, warnings: ReadWarnings) -> list[tuple[str, np.ndarray]]:
    """Parse a FASTA file into (name, residue codes) of each record.

    Lower case is upper case; blanks, the numbers beside a line, and a stop at the end are left out. Chains that : or /
    joins, as for ColabFold, are read one by one.

    Raises:
        ValueError: what is wrong with it, and where.
    """
    chains = []
    for name, rest in records(text):
        parts = [part for part in JOIN.split(_letters(name, rest, warnings)) if part]
        distinct = [*dict.fromkeys(parts)]
        if not parts:
            raise ValueError(f"record {name!r} is empty")
        if len(parts) > 1:
            warnings[COMPLEX].append(name)
        for n, letters in enumerate(distinct):
            called = name if len(parts) == 1 else f"{name}_{chain_id(n)}"
            chains.append((called, _checked(name, letters, warnings)))
    return chains


def chain_id(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    return (chain_id(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _letters(name: str, rest: str, warnings: ReadWarnings) -> str:
    rest, counts = re.subn(r"(?<!\S)\d+(?!\S)", "", rest)
    if counts:
        warnings["numbers beside sequences, left out"] += [name] * counts
    letters = "".join(rest.split()).upper()
    if letters.endswith("*"):
        warnings["stops (*) at the end of sequences, left out"].append(name)
    return letters.rstrip("*")


def _checked(name: str, letters: str, warnings: ReadWarnings) -> np.ndarray:
    if wrong := sorted(set(letters) - set(AMINO_ACIDS + AMBIGUOUS)):
        hint = "; an alignment, with gaps, must be called .a3m or .sto" if wrong[0] in "-." else ""
        raise ValueError(
            f"record {name!r}: {wrong[0]!r} at position {letters.index(wrong[0]) + 1} is no amino acid; "
            f"possible: {AMINO_ACIDS}, and {AMBIGUOUS} for unknown ones{hint}"
        )
    if len(letters) >= ENOUGH and {*"ACG"} <= {*letters} <= NUCLEIC:
        warnings["sequences of nothing but A, C, G, T, U and N, read as protein: are they nucleic acids?"].append(name)
    for letter in sorted({*AMBIGUOUS.strip("X")} & {*letters}):
        warnings["ambiguous residues, read as X"] += [letter] * letters.count(letter)
    return encode_residues(letters)
