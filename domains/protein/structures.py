"""Protein chains from a table of atoms, which all formats of structures become (pdb.py, mmcif.py).

What is hard is dealt with once: chains that share a name, other conformations of a residue, residues that were not
seen, numbers that jump, modified residues, and what is no protein.

Shapes: N residues of a chain
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from domains.protein.alphabet import numbered
from domains.protein.chain import Chain, virtual_cb
from domains.protein.placement import Residue, next_to, places
from domains.protein.remarks import Remarks
from domains.protein.residues import CAPS, NUCLEOTIDES, make_letter, remark

ATOMS = ("N", "CA", "C", "CB")  # all that is asked of a residue
BACKBONE = ("N", "CA", "C")
SUGAR = ("C1'", "C1*")  # of nucleotides
LAST_NUMBER = 9999  # of a PDB file; some programs go on from 0


class Name(NamedTuple):
    """The name of a chain in its file."""

    polymer: str  # in SEQRES
    author: str  # in public; may be ""


class Atom(NamedTuple):
    """A line of the table."""

    chain: Name
    part: int  # how many chains of that name have ended before
    het: bool  # HETATM: a modified residue, a ligand, or water
    loose: bool  # no part of a polymer, unless it is bound to one
    name: str  # one of ATOMS
    altloc: str  # which of several conformations; "" if there is one
    code: str  # of the residue: MSE
    number: int  # of the residue, by the authors
    insertion: str  # letter that follows the number, or ""
    place: int | None  # of the residue in SEQRES, from 0, if the file knows it
    occupancy: float
    xyz: tuple[float, float, float]  # Å


Rows = list[Atom]  # of one residue
Polymers = Mapping[str, Sequence[str]]  # chain -> the codes of all of its residues, seen or not


class Segment:
    """Residues that follow each other under one name, up to where another chain begins."""

    def __init__(self, name: Name, part: int):
        self.name, self.part = name, part
        self.residues: list[Rows] = []
        self.known: dict[tuple, Rows] = {}

    def add(self, rows: Rows) -> None:
        self.residues.append(self.known.setdefault(key(rows), rows))

    def has(self, rows: Rows) -> bool:
        """Whether atoms of these are there already."""
        twin = self.known.get(key(rows), [])
        return not {(atom.name, atom.altloc) for atom in twin}.isdisjoint((atom.name, atom.altloc) for atom in rows)

    def falls(self, rows: Rows) -> bool:
        """Whether their number is below the last one, and they are not bound to it."""
        before, number = self.residues[-1], rows[0].number
        wraps = before[0].number == LAST_NUMBER and number <= 1
        falls = number < before[0].number and not wraps and key(rows) not in self.known
        return falls and not next_to(coordinates(before), coordinates(rows))


def key(rows: Rows) -> tuple:
    return rows[0].place, rows[0].number, rows[0].insertion


def coordinates(rows: Rows) -> dict[str, np.ndarray]:
    return {atom.name: np.array(atom.xyz) for atom in reversed(rows)}


def build_chains(
    atoms: Iterable[Atom], polymers: Polymers, stem: str, named: Iterable[tuple[str, str]], remarks: Remarks
) -> list[Chain]:
    """The protein chains of a table of atoms.

    Args:
        polymers: SEQRES, of the chains that have one.
        stem: of the file's name.
        named: names of residues, each with the name of an atom of it: of all atoms, side chains as well.
    Raises:
        ValueError: if there is none, or one does not fit its SEQRES.
    """
    named = set(named)
    letter = make_letter(named, remarks)
    seen: dict[Name, list[list[Residue]]] = {}
    others = defaultdict(set)
    for segment in split(atoms, polymers, letter, remarks):
        residues = [_conformation(rows) for rows in segment.residues]
        kept = [r for r in residues if r.code not in CAPS and (letter(r.code) or {*BACKBONE} <= set(r.atoms))]
        if kept:
            seen.setdefault(segment.name, []).append(kept)
        else:
            others[segment.name.author] |= {residue.code for residue in residues}
    if not seen:
        others = f"; its other chains are {', '.join(sorted(filter(None, others)))}" if any(others) else ""
        raise ValueError(f"it holds no protein chain{others}")
    if any(code in NUCLEOTIDES and atom in SUGAR for code, atom in named):
        remarks["files with nucleic acids, which are left out"].append(stem)
    chains = []
    for name, segments in seen.items():
        title = f"{stem}_{name.author}" if name.author else stem
        for number, residues in enumerate(segments, 1):
            called = title if number == 1 else f"{title}_{number}"
            if number > 1:
                remarks["chains that share a name, told apart by TER or by where numbers begin again"].append(called)
            try:
                chains.append(_chain(called, residues, _polymer(polymers, name, segments, letter), letter, remarks))
            except ValueError as error:
                raise ValueError(f"chain {name.author}: {error}") from error
    return chains


def split(atoms: Iterable[Atom], polymers: Polymers, letter: Callable[[str], str], remarks: Remarks) -> list[Segment]:
    """Segments in the order of the file; what is loose, and out of order, belongs to the one that it is bound to."""
    segments, last, loose = [], {}, []
    for _, group in groupby(atoms, lambda atom: (atom.chain, atom.part, atom.place, atom.number, atom.insertion)):
        rows = [*group]
        first, segment = rows[0], last.get(rows[0].chain)
        whole = first.place is not None or first.chain.polymer in polymers  # numbers may fall then, as in a fusion
        falls = segment is not None and first.part == segment.part and not whole and segment.falls(rows)
        if first.loose or (falls and first.het):
            loose += [rows] * bool(letter(first.code))
            continue
        if segment is None or first.part > segment.part or falls or segment.has(rows):
            segment = last[first.chain] = Segment(first.chain, first.part)
            segments.append(segment)
        if twin := segment.known.get(key(rows)):  # another conformation, farther down
            twin += rows
        else:
            segment.add(rows)
    for rows in _bind(loose, segments):
        remarks["amino acids that are bound to no chain, left out"].append(f"{rows[0].code} {rows[0].number}")
    for segment in segments:
        said = [rows[0].place for rows in segment.residues]
        if None not in said and len(set(said)) == len(said):
            segment.residues.sort(key=lambda rows: rows[0].place or 0)
    return segments


def _bind(loose: list[Rows], segments: list[Segment]) -> list[Rows]:
    """Put residues before or behind the ones that they are bound to. Returns those that are bound to none."""
    waiting = len(loose) + 1
    while len(loose) < waiting:  # one may be bound to one that has just found its place
        waiting, rest = len(loose), []
        for rows in loose:
            if not any(_insert(rows, s) for s in segments if s.name.author == rows[0].chain.author):
                rest.append(rows)
        loose = rest
    return loose


def _insert(rows: Rows, segment: Segment) -> bool:
    own = coordinates(rows)
    for n, other in enumerate(segment.residues):
        near, step = coordinates(other), rows[0].number - other[0].number
        after = step in (0, 1) and next_to(near, own)
        if after or (step in (-1, 0) and next_to(own, near)):
            segment.residues.insert(n + after, rows)
            return True
    return False


def _polymer(
    polymers: Polymers, name: Name, segments: list[list[Residue]], letter: Callable[[str], str]
) -> Sequence[str]:
    """SEQRES of a chain; of several that share a name, only where it is that of each, and not of all in a row."""
    polymer = polymers.get(name.polymer, ())
    if len(segments) == 1 or len(polymer) >= sum(map(len, segments)):
        return polymer if len(segments) == 1 else ()
    whole = "".join(letter(code) or "X" for code in polymer)
    for residues in segments:
        try:
            places(residues, "".join(letter(r.code) or "X" for r in residues), whole, "", Remarks())
        except ValueError:
            return ()
    return polymer


def _conformation(rows: Rows) -> Residue:
    """One conformation of a residue: that of the highest occupancy, the first in the alphabet of equal ones."""
    shares = defaultdict(list)
    for atom in rows:
        shares[atom.altloc, atom.code].append(atom.occupancy)
    mean = {other: sum(share) / len(share) for other, share in shares.items() if other[0]}
    first, *_ = sorted(mean, key=lambda other: (-mean[other], other[0])) or [("", rows[0].code)]
    mine = [atom for atom in rows if atom.altloc in ("", first[0]) and atom.code == first[1]]
    rest = sorted((atom for atom in rows if atom.code == first[1]), key=lambda atom: (-atom.occupancy, atom.altloc))
    atoms: dict[str, np.ndarray] = {}
    for atom in (*mine, *rest):  # an atom that this conformation lacks is that of another
        atoms.setdefault(atom.name, np.array(atom.xyz))
    return Residue(first[1], rows[0].number, rows[0].insertion, rows[0].place, atoms)


def _chain(
    name: str, residues: list[Residue], polymer: Sequence[str], letter: Callable[[str], str], remarks: Remarks
) -> Chain:
    letters = "".join(letter(residue.code) or "X" for residue in residues)
    at = places(residues, letters, "".join(letter(code) or "X" for code in polymer), name, remarks)
    codes = [*polymer, *["UNK"] * (max(at) + 1 - len(polymer))]
    numbers, cb = [""] * len(codes), np.full((len(codes), 3), np.nan, np.float32)
    for place, residue, stand_in in zip(at, residues, _stand_ins(name, residues, letters, remarks), strict=True):
        codes[place] = residue.code
        numbers[place] = f"{residue.number}{residue.insertion}"
        cb[place] = stand_in
    remark(codes, letter, remarks)
    return Chain(name, numbered("".join(letter(code) or "X" for code in codes)), None, cb, numbers=tuple(numbers))


def _stand_ins(name: str, residues: list[Residue], letters: str, remarks: Remarks) -> Iterator[np.ndarray]:
    """Cβ of each residue, Cα of a glycine; NaN where it was not seen.

    In a chain of which no residue has a Cβ, for it is a model of the backbone, Cβ of ideal geometry; or Cα, where that
    is all there is.
    """
    nowhere = np.full(3, np.nan)
    modelled = bool(letters.strip("G")) and not any("CB" in residue.atoms for residue in residues)
    if modelled:
        remarks["chains without any Cβ, which is placed by ideal geometry; Cα stands for it without N or C"].append(
            name
        )
    for letter, (*_, atoms) in zip(letters, residues, strict=True):
        if modelled and letter != "G" and {*BACKBONE} <= set(atoms):
            yield virtual_cb(np.stack([atoms[atom] for atom in BACKBONE])[None], np.zeros(1))[0]
        else:
            yield atoms.get("CA" if modelled or letter == "G" else "CB", nowhere)
