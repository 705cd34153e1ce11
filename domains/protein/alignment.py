"""Multiple sequence alignments of A3M and Stockholm files.

Shapes: D sequences · N residues of the first of them, the query
"""

import re
from dataclasses import dataclass
from io import StringIO
from itertools import accumulate, pairwise
from string import ascii_lowercase

import numpy as np
from Bio import AlignIO

from domains.protein.alphabet import AMBIGUOUS, AMINO_ACIDS, RESIDUE_CODES
from domains.protein.fasta import COMPLEX, JOIN, records
from domains.protein.read_warnings import ReadWarnings, collect_warnings

# hh-suite's annotation records: secondary structure, accessibility, predicted or by DSSP; and the consensus
ANNOTATION = re.compile(r"(ss|sa|aa|bb)_(pred|conf|dssp)$")
CONSENSUS = re.compile(r"(.*_)?consensus$", re.IGNORECASE)
CHAINS = re.compile(
    r"#(\d+(?:,\d+)*)\s+(\d+(?:,\d+)*)\s*$"
)  # ColabFold's header: lengths of the chains, copies of each
STOPS = "stops (*) of aligned sequences, read as gaps, or left out behind the query's end"
INSERTED = dict.fromkeys(map(ord, ascii_lowercase))  # deletes them
Record = tuple[str, str]  # name, letters


@dataclass(frozen=True, eq=False)  # compared by identity, to be a cache key
class Alignment:
    """Sequences aligned to a query, which is the first of them.

    Attributes:
        rows: (D, N) codes of amino acids, UNKNOWN or GAP, int8.
        insertions: (D, N) number of inserted residues before each column, int16.
    """

    rows: np.ndarray
    insertions: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def parse_a3m(text: str) -> Alignment:
    """Parse an A3M file of one chain (`parse_a3m_chains`).

    Raises:
        ValueError: what is wrong, and in which sequence.
    """
    with collect_warnings("an A3M file", None) as warnings:
        alignments = parse_a3m_chains(text, "it", warnings)
    if len(alignments) > 1:
        raise ValueError(f"it is an alignment of {len(alignments)} chains; give one of a single chain")
    return alignments[0]


def parse_a3m_chains(text: str, stem: str, warnings: ReadWarnings) -> list[Alignment]:
    """Parse an A3M file into one alignment for each distinct chain of its query.

    A3M is FASTA in which lower-case letters are insertions that the query does not have. Dots, which A2M writes beside
    insertions, are skipped; so are lines that begin with #, and hh-suite's records of secondary structure. The query is
    the first sequence; a zero byte, as MMseqs2 writes it, ends the alignment. Several chains stand end to end:
    ColabFold gives their lengths in its first line, others write : or / between them.

    Raises:
        ValueError: what is wrong, and in which sequence.
    """
    first, *others = [part for part in text.split("\0") if part.strip()] or [""]
    if others:
        warnings["alignments behind a zero byte, left out"] += [stem] * len(others)
    found = [(name, "".join(rest.split()).replace(".", "")) for name, rest in records(first)]
    found = [(name, letters) for name, letters in found if not ANNOTATION.match(name)]
    consensus = [name for name, _ in found if CONSENSUS.match(name)]
    if 0 < len(consensus) < len(found):
        warnings["consensus sequences, left out"] += consensus
        found = [(name, letters) for name, letters in found if not CONSENSUS.match(name)]
    if not found or not found[0][1]:
        raise ValueError("it holds no sequence")
    lengths, copies = _chains(first, found[0][1].rstrip("*"))
    if sum(copies) > 1:
        warnings[COMPLEX].append(stem)
    found = _even([(name, JOIN.sub("", letters)) for name, letters in found], warnings)
    if gaps := found[0][1].count("-") * bool(consensus):  # the columns were those of the consensus
        warnings["columns in which the query has a gap, read as insertions"] += [found[0][0]] * gaps
        return [_aligned(found, gaps=True)]
    return [_aligned(own) for own in (_split(found, lengths) if len(lengths) > 1 else [found])]


def _chains(text: str, query: str) -> tuple[list[int], list[int]]:
    """Return the lengths of the chains of a query, and the copies of each."""
    header = CHAINS.match(text.strip().partition("\n")[0])
    if header is None:
        lengths = [len(part) for part in JOIN.split(query) if part]
        return lengths, [1] * len(lengths)
    lengths, copies = ([int(number) for number in numbers.split(",")] for numbers in header.groups())
    whole = len(JOIN.sub("", query))
    if len(lengths) > 1 and (sum(lengths) != whole or min(lengths) < 1):
        raise ValueError(f"its first line tells of chains of {header[1]} residues, and its query has {whole}")
    return lengths, copies


def _split(found: list[Record], lengths: list[int]) -> list[list[Record]]:
    """Split the alignment of concatenated chains: each gets the sequences with residues in it."""
    columns = [(name, re.findall("[a-z]*[^a-z]", letters)) for name, letters in found]  # each with insertions before
    alignments: dict[str, list[Record]] = {}
    for start, end in pairwise(accumulate(lengths, initial=0)):
        own = [(name, "".join(parts[start:end])) for name, parts in columns]
        query, *hits = own
        hits = [(name, letters) for name, letters in hits if letters.translate(INSERTED).strip("-")]
        alignments.setdefault(query[1], [query, *hits])
    return [*alignments.values()]


def parse_stockholm(text: str, warnings: ReadWarnings | None = None) -> Alignment:
    """Parse a Stockholm file. The first sequence is the query; columns in which it has a gap are insertions.

    Args:
        warnings: collects what is left out or changed; if None, it is emitted here.
    Raises:
        ValueError: what is wrong, and in which sequence.
    """
    if not text.rstrip().endswith("//"):
        raise ValueError("it does not end with //: it is cut short, or no Stockholm file")
    try:
        found = [(r.id, str(r.seq).upper().replace(".", "-")) for r in AlignIO.read(StringIO(text), "stockholm")]
    except (AssertionError, KeyError, IndexError) as error:  # from Biopython, on text after the end
        raise ValueError("it is damaged, or holds several alignments") from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error  # in one line
    with collect_warnings("a Stockholm file", warnings) as own:
        return _aligned(_even(found, own), gaps=True)


def _even(found: list[Record], warnings: ReadWarnings) -> list[Record]:
    """Return the sequences with the query's number of columns, without its stop (*); other stops become gaps."""
    (name, letters), *hits = found
    query = letters.rstrip("*")
    if query != letters:
        warnings["stops (*) at the end of a query, left out"].append(name)
    even, size = [(name, query)], _columns(query)
    for name, letters in hits:
        end = letters.rstrip(ascii_lowercase)
        if _columns(letters) == size + 1 and (end.endswith("*") or query != found[0][1]):
            warnings[STOPS] += [name] * end.endswith("*")
            letters = end[:-1]
        elif _columns(letters) != size:
            raise ValueError(
                f"sequence {name!r} has {_columns(letters)} aligned residues and gaps, and the query has {size}: "
                "it is cut short, or no alignment"
            )
        if stops := letters.count("*"):
            warnings[STOPS] += [name] * stops
        even.append((name, letters.replace("*", "-")))
    return even


def _columns(letters: str) -> int:
    return len(letters.translate(INSERTED))


def _aligned(found: list[Record], gaps: bool = False) -> Alignment:
    """Return the alignment of sequences with equal columns; with `gaps`, the query's gap columns become insertions."""
    name, query = found[0]
    if not query.strip("-"):
        raise ValueError("it holds no sequence")
    if any(letter.islower() for letter in query) or ("-" in query and not gaps):
        raise ValueError(f"its first sequence, {name!r}, must be the query, without gaps and insertions")
    if "-" in query:
        found = [(name, _without_gaps(letters, query)) for name, letters in found]
    rows, insertions = zip(*(_numbers(*record) for record in found), strict=True)
    return Alignment(np.stack(rows), np.stack(insertions).clip(max=np.iinfo(np.int16).max).astype(np.int16))


def _without_gaps(letters: str, query: str) -> str:
    kept = iter(query)
    return "".join(a if a.islower() or next(kept) != "-" else a.lower().replace("-", "") for a in letters)


def _numbers(name: str, letters: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the code of each column's letter, and the number of insertions before it."""
    codes = np.frombuffer(letters.encode("ascii", "replace"), np.uint8)
    lower = (codes >= ord("a")) & (codes <= ord("z"))
    numbers = RESIDUE_CODES[np.where(lower, codes - 32, codes)]
    if (numbers < 0).any():
        wrong = letters[int(np.argmax(numbers < 0))]
        raise ValueError(
            f"{wrong!r} in sequence {name!r} is no amino acid; possible: {AMINO_ACIDS}, {AMBIGUOUS} for unknown ones, "
            "lower case for insertions and - for gaps"
        )
    return numbers[~lower], np.diff(np.flatnonzero(~lower), prepend=-1) - 1
