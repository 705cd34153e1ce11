"""Reader of PDB files, also of other programs."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from domains.protein.chain import Chain
from domains.protein.read_warnings import ReadWarnings
from domains.protein.residues import ONE_LETTER, STANDARD
from domains.protein.structures import ATOMS, Atom, Name, build_chains

RECORDS = ("ATOM", "HETA")  # also HETATM, and serials of six digits
DIGITS, WIDTH = 36, 4  # of hybrid-36


def parse_pdb(text: str, stem: str, warnings: ReadWarnings) -> list[Chain]:
    """Parse the protein chains of a PDB file: of its first entry and first model.

    Chains that share an id, or have none, are told apart by TER, by where numbers begin again, and by segment (CHARMM).

    Raises:
        ValueError: what is wrong with the file.
    """
    lines = text.split("\n")
    if any(line.startswith("HEADER") for line in lines) and not any(line.split() == ["END"] for line in lines):
        raise ValueError("it has a HEADER and no END: it is cut short; if it is whole, write END in a last line")
    lines = _first_model(lines, stem, warnings)
    wide = _two_letters(lines)
    polymers: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.startswith("SEQRES"):
            polymers[line[10 if wide else 11 : 12].strip()] += line[19:70].split()
    named = {(_code(line, wide), line[12:16].strip()) for line in lines if line[:4] in RECORDS}
    return build_chains(_atoms(lines, wide), polymers, stem, named, warnings)


def _first_model(lines: list[str], stem: str, warnings: ReadWarnings) -> list[str]:
    """Return the lines up to the end of the first model."""
    ends, within = [], False  # of parts with atoms
    for at, line in enumerate(lines):
        if line[:4] in RECORDS:
            within = True
        elif within and (line.startswith(("ENDMDL", "MODEL ", "HEADER")) or line.split() == ["END"]):
            ends, within = [*ends, at], False
    others = len(ends) - 1 + within
    if others > 0:
        warnings["models or entries behind the first, left out"] += [stem] * others
    return lines[: ends[0]] if ends else lines


def _two_letters(lines: list[str]) -> bool:
    """Return whether chain ids have two letters: residue names with the fourth letter would be unknown."""
    return any(
        line[:4] in RECORDS and line[17:20] in STANDARD and line[20:21].strip() and line[17:21] not in ONE_LETTER
        for line in lines
    )


def _code(line: str, wide: bool) -> str:
    return line[17 : 20 if wide else 21].strip()  # up to four letters: NALA, HISD


def _atoms(lines: list[str], wide: bool) -> Iterator[Atom]:
    segments = _segments(lines, wide)
    last, ended, begun = "", Counter(), set()  # chain id; counts of TER by id; chains that began again
    for at, line in enumerate(lines, 1):
        if line.startswith("TER"):
            ended[last] += 1
            begun.discard(last)
        if line[:4] not in RECORDS:
            continue
        last = chain = line[20 if wide else 21 : 22].strip()
        code, atom, het = _code(line, wide), line[12:16], line.startswith("HETATM")
        if not het and code in ONE_LETTER:
            begun.add(chain)
        if atom.strip() not in ATOMS or (atom.startswith("CA") and code == "CA"):
            continue
        try:
            xyz = float(line[30:38]), float(line[38:46]), float(line[46:54])
            if len(line) < 54:  # the last number may be truncated
                raise ValueError
            yield Atom(
                Name(chain, segments.get((chain, line[72:76].strip()), chain)),
                ended[chain],
                het,
                het and ended[chain] > 0 and chain not in begun,
                atom.strip(),
                line[16].strip(),
                code,
                read_number(line[22:26]),
                line[26].strip(),
                None,
                float(line[54:60].strip() or 1.0),
                xyz,
            )
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {at} is no line of an atom, or cut short: {line[:60]!r}") from error


def read_number(text: str) -> int:
    """Parse a residue number, in hybrid-36 beyond 9999: A000 is 10000, ZZZZ is followed by a000.

    Source: cctbx, iotbx.pdb.hybrid_36.
    """
    if not text[:1].isalpha():
        return int(text)
    upper = int(text, DIGITS) - 10 * DIGITS ** (WIDTH - 1) + 10**WIDTH
    return upper + 26 * DIGITS ** (WIDTH - 1) * text[0].islower()


def _segments(lines: list[str], wide: bool) -> dict[tuple[str, str], str]:
    """Name chains that share an id and differ in segment (columns 73 to 76): by both, or by the segment alone."""
    found: dict[str, dict[str, None]] = defaultdict(dict)  # id -> segments in their order
    for line in lines:
        if line[:4] in RECORDS and _code(line, wide) in ONE_LETTER and (segment := line[72:76].strip()):
            found[line[20 if wide else 21 : 22].strip()][segment] = None
    return {
        (chain, segment): f"{chain}_{segment}" if chain else segment
        for chain, segments in found.items()
        for segment in segments
        if len(segments) > 1
    }
