"""FASTA, as all who write it understand it."""

import re
from collections.abc import Iterator

import numpy as np

from domains.protein.alphabet import AMBIGUOUS, LETTERS, numbered
from domains.protein.remarks import Remarks

COMMENTS = (";", "#", "!")
PIR = re.compile(r"(P1|F1|XX);")  # a record of NBRF, in which a line of description follows the name
JOIN = re.compile("[:/]")  # between the chains of a complex
COMPLEX = "complexes, of which each chain that differs is read on its own: contacts between chains are not predicted"
NUCLEIC, ENOUGH = set("ACGTUN"), 20  # letters; how many of them make one wonder
NO_RECORD = "it holds no line >name, followed by a sequence"


def records(text: str) -> Iterator[tuple[str, str]]:
    """(name, what follows) of each record: the text up to the next line that begins with >, without comments.

    Raises:
        ValueError: if there is none, or something else before.
    """
    lines = (line.removeprefix("\0") for line in text.split("\n"))  # MMseqs2 writes a zero byte behind a record
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


def parse_fasta(text: str, remarks: Remarks) -> list[tuple[str, np.ndarray]]:
    """(name, numbers of residues) of each record of a FASTA file.

    Lower case is upper case; blanks, the numbers beside a line, and a stop at the end are left out. Chains that : or /
    joins, as for ColabFold, are read one by one.

    Raises:
        ValueError: what is wrong with it, and where.
    """
    chains = []
    for name, rest in records(text):
        parts = [part for part in JOIN.split(_letters(name, rest, remarks)) if part]
        distinct = [*dict.fromkeys(parts)]
        if not parts:
            raise ValueError(f"record {name!r} is empty")
        if len(parts) > 1:
            remarks[COMPLEX].append(name)
        for n, letters in enumerate(distinct):
            called = name if len(parts) == 1 else f"{name}_{chain_id(n)}"
            chains.append((called, _checked(name, letters, remarks)))
    return chains


def chain_id(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    return (chain_id(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _letters(name: str, rest: str, remarks: Remarks) -> str:
    rest, counts = re.subn(r"(?<!\S)\d+(?!\S)", "", rest)
    if counts:
        remarks["numbers beside sequences, left out"] += [name] * counts
    letters = "".join(rest.split()).upper()
    if letters.endswith("*"):
        remarks["stops (*) at the end of sequences, left out"].append(name)
    return letters.rstrip("*")


def _checked(name: str, letters: str, remarks: Remarks) -> np.ndarray:
    if wrong := sorted(set(letters) - set(LETTERS + AMBIGUOUS)):
        hint = "; an alignment, with gaps, must be called .a3m or .sto" if wrong[0] in "-." else ""
        raise ValueError(
            f"record {name!r}: {wrong[0]!r} at position {letters.index(wrong[0]) + 1} is no amino acid; "
            f"possible: {LETTERS}, and {AMBIGUOUS} for unknown ones{hint}"
        )
    if len(letters) >= ENOUGH and {*"ACG"} <= {*letters} <= NUCLEIC:
        remarks["sequences of nothing but A, C, G, T, U and N, read as protein: are they nucleic acids?"].append(name)
    for letter in sorted({*AMBIGUOUS.strip("X")} & {*letters}):
        remarks["ambiguous residues, read as X"] += [letter] * letters.count(letter)
    return numbered(letters)
