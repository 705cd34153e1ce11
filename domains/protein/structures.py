"""Protein chains from a table of atoms, for all structure formats (pdb.py, mmcif.py).

Handles chains that share a name, alternative conformations, unresolved residues, jumps of residue numbers, modified
residues, and non-protein atoms.

Shapes: N residues of a chain
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from domains.protein.alphabet import encode_residues
from domains.protein.chain import Chain, virtual_cb
from domains.protein.read_warnings import ReadWarnings
from domains.protein.residues import CAPS, NUCLEOTIDES, make_one_letter, warn_modified
from domains.protein.seqres import Residue, align_to_seqres, bonded

ATOMS = ("N", "CA", "C", "CB")  # the atoms that are read
BACKBONE = ("N", "CA", "C")
SUGAR = ("C1'", "C1*")  # of nucleotides
LAST_NUMBER = 9999  # of a PDB file; some programs continue from 0


class Name(NamedTuple):
    """The name of a chain in its file."""

    polymer: str  # in SEQRES
    author: str  # the author's; may be ""


class Atom(NamedTuple):
    """An atom, one row of the table."""

    chain: Name
    part: int  # number of earlier chains of that name
    het: bool  # HETATM: a modified residue, a ligand, or water
    loose: bool  # not part of a polymer, unless bonded to one
    name: str  # one of ATOMS
    altloc: str  # alternative conformation; "" without alternatives
    code: str  # of the residue: MSE
    number: int  # author numbering of the residue
    insertion: str  # letter that follows the number, or ""
    seqres_index: int | None  # of the residue in SEQRES, from 0, if the file knows it
    occupancy: float
    xyz: tuple[float, float, float]  # Å


Rows = list[Atom]  # of one residue
Polymers = Mapping[str, Sequence[str]]  # chain -> codes of all of its residues, resolved or not


class Segment:
    """Consecutive residues of one chain name."""

    def __init__(self, name: Name, part: int):
        self.name, self.part = name, part
        self.residues: list[Rows] = []
        self.known: dict[tuple, Rows] = {}

    def add(self, rows: Rows) -> None:
        self.residues.append(self.known.setdefault(key(rows), rows))

    def has(self, rows: Rows) -> bool:
        """Return whether the segment already has some of these atoms."""
        twin = self.known.get(key(rows), [])
        return not {(atom.name, atom.altloc) for atom in twin}.isdisjoint((atom.name, atom.altloc) for atom in rows)

    def falls(self, rows: Rows) -> bool:
        """Return whether the residue number falls, without a bond to the last residue."""
        before, number = self.residues[-1], rows[0].number
        wraps = before[0].number == LAST_NUMBER and number <= 1
        falls = number < before[0].number and not wraps and key(rows) not in self.known
        return falls and not bonded(coordinates(before), coordinates(rows))


def key(rows: Rows) -> tuple:
    return rows[0].seqres_index, rows[0].number, rows[0].insertion


def coordinates(rows: Rows) -> dict[str, np.ndarray]:
    return {atom.name: np.array(atom.xyz) for atom in reversed(rows)}


def build_chains(
    atoms: Iterable[Atom], polymers: Polymers, stem: str, named: Iterable[tuple[str, str]], warnings: ReadWarnings
) -> list[Chain]:
    """Build the protein chains of a table of atoms.

    Args:
        polymers: SEQRES, of the chains that have one.
        stem: of the file's name.
        named: (residue name, atom name) of all atoms, side chains included.
    Raises:
        ValueError: if there is none, or one does not fit its SEQRES.
    """
    named = set(named)
    letter = make_one_letter(named, warnings)
    seen: dict[Name, list[list[Residue]]] = {}
    others = defaultdict(set)
    for segment in split(atoms, polymers, letter, warnings):
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
        warnings["files with nucleic acids, which are left out"].append(stem)
    chains = []
    for name, segments in seen.items():
        title = f"{stem}_{name.author}" if name.author else stem
        for number, residues in enumerate(segments, 1):
            called = title if number == 1 else f"{title}_{number}"
            if number > 1:
                warnings["chains that share a name, told apart by TER or by where numbers begin again"].append(called)
            try:
                chains.append(_chain(called, residues, _polymer(polymers, name, segments, letter), letter, warnings))
            except ValueError as error:
                raise ValueError(f"chain {name.author}: {error}") from error
    return chains


def split(
    atoms: Iterable[Atom], polymers: Polymers, letter: Callable[[str], str], warnings: ReadWarnings
) -> list[Segment]:
    """Return segments in file order; loose residues join the segment that they are bonded to."""
    segments, last, loose = [], {}, []
    for _, group in groupby(
        atoms, lambda atom: (atom.chain, atom.part, atom.seqres_index, atom.number, atom.insertion)
    ):
        rows = [*group]
        first, segment = rows[0], last.get(rows[0].chain)
        whole = (
            first.seqres_index is not None or first.chain.polymer in polymers
        )  # numbers may fall then, as in a fusion
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
        warnings["amino acids that are bound to no chain, left out"].append(f"{rows[0].code} {rows[0].number}")
    for segment in segments:
        seqres_indices = [rows[0].seqres_index for rows in segment.residues]
        if None not in seqres_indices and len(set(seqres_indices)) == len(seqres_indices):
            segment.residues.sort(key=lambda rows: rows[0].seqres_index or 0)
    return segments


def _bind(loose: list[Rows], segments: list[Segment]) -> list[Rows]:
    """Insert loose residues next to the residues that they are bonded to. Return those without a bond."""
    waiting = len(loose) + 1
    while len(loose) < waiting:  # one may be bonded to one inserted just now
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
        after = step in (0, 1) and bonded(near, own)
        if after or (step in (-1, 0) and bonded(own, near)):
            segment.residues.insert(n + after, rows)
            return True
    return False


def _polymer(
    polymers: Polymers, name: Name, segments: list[list[Residue]], letter: Callable[[str], str]
) -> Sequence[str]:
    """Return SEQRES of a chain; for several chains of one name, only if each of them matches it."""
    polymer = polymers.get(name.polymer, ())
    if len(segments) == 1 or len(polymer) >= sum(map(len, segments)):
        return polymer if len(segments) == 1 else ()
    whole = "".join(letter(code) or "X" for code in polymer)
    for residues in segments:
        try:
            align_to_seqres(residues, "".join(letter(r.code) or "X" for r in residues), whole, "", ReadWarnings())
        except ValueError:
            return ()
    return polymer


def _conformation(rows: Rows) -> Residue:
    """Return one conformation of a residue: of the highest occupancy, ties in alphabetical order."""
    shares = defaultdict(list)
    for atom in rows:
        shares[atom.altloc, atom.code].append(atom.occupancy)
    mean = {other: sum(share) / len(share) for other, share in shares.items() if other[0]}
    first, *_ = sorted(mean, key=lambda other: (-mean[other], other[0])) or [("", rows[0].code)]
    mine = [atom for atom in rows if atom.altloc in ("", first[0]) and atom.code == first[1]]
    rest = sorted((atom for atom in rows if atom.code == first[1]), key=lambda atom: (-atom.occupancy, atom.altloc))
    atoms: dict[str, np.ndarray] = {}
    for atom in (*mine, *rest):  # a missing atom is taken from another conformation
        atoms.setdefault(atom.name, np.array(atom.xyz))
    return Residue(first[1], rows[0].number, rows[0].insertion, rows[0].seqres_index, atoms)


def _chain(
    name: str, residues: list[Residue], polymer: Sequence[str], letter: Callable[[str], str], warnings: ReadWarnings
) -> Chain:
    letters = "".join(letter(residue.code) or "X" for residue in residues)
    at = align_to_seqres(residues, letters, "".join(letter(code) or "X" for code in polymer), name, warnings)
    codes = [*polymer, *["UNK"] * (max(at) + 1 - len(polymer))]
    residue_numbers, cb = [""] * len(codes), np.full((len(codes), 3), np.nan, np.float32)
    for seqres_index, residue, stand_in in zip(
        at, residues, _stand_ins(name, residues, letters, warnings), strict=True
    ):
        codes[seqres_index] = residue.code
        residue_numbers[seqres_index] = f"{residue.number}{residue.insertion}"
        cb[seqres_index] = stand_in
    warn_modified(codes, letter, warnings)
    return Chain(
        name,
        encode_residues("".join(letter(code) or "X" for code in codes)),
        None,
        cb,
        residue_numbers=tuple(residue_numbers),
    )


def _stand_ins(name: str, residues: list[Residue], letters: str, warnings: ReadWarnings) -> Iterator[np.ndarray]:
    """Yield Cβ of each residue, Cα of glycine; NaN if unresolved.

    A chain without any Cβ is a backbone model: it gets Cβ of ideal geometry, or Cα without N and C.
    """
    nowhere = np.full(3, np.nan)
    modelled = bool(letters.strip("G")) and not any("CB" in residue.atoms for residue in residues)
    if modelled:
        warnings["chains without any Cβ, which is placed by ideal geometry; Cα stands for it without N or C"].append(
            name
        )
    for letter, (*_, atoms) in zip(letters, residues, strict=True):
        if modelled and letter != "G" and {*BACKBONE} <= set(atoms):
            yield virtual_cb(np.stack([atoms[atom] for atom in BACKBONE])[None], np.zeros(1))[0]
        else:
            yield atoms.get("CA" if modelled or letter == "G" else "CB", nowhere)
