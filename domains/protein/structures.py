"""Protein chains of PDB, mmCIF and BinaryCIF files.

All three become one table of atoms, so that what is hard is dealt with once: several models, other conformations of a
residue, residues that were not seen, numbers that jump, modified residues, and what is no protein.

Shapes: N residues of a chain
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import NamedTuple

import numpy as np
from Bio.Data.PDBData import protein_letters_3to1_extended
from Bio.PDB.MMCIF2Dict import MMCIF2Dict

from domains.protein.binarycif import parse_binary_cif
from domains.protein.chain import Chain
from domains.protein.letters import numbered

ATOMS = ("N", "CA", "C", "CB")  # all that is asked of a residue
CATEGORIES = ("_atom_site", "_pdbx_poly_seq_scheme", "_entity_poly_seq", "_struct_asym")  # of mmCIF
ONE_LETTER = {code.strip(): letter for code, letter in protein_letters_3to1_extended.items()}  # MSE is M
BOND = 2.0  # Å; farther apart, C and the next N are not bound to each other
JUMP = 100  # missing residues; numbers that jump farther are a way of counting, such as 1001 for a fused domain
LONGEST = 100_000  # residues of a chain; titin, the longest that is known, has about 35,000
MISPLACED = 0.1  # share of residues that may differ from SEQRES


class Atom(NamedTuple):
    """A line of the table."""

    chain: str
    name: str  # one of ATOMS
    altloc: str  # which of several conformations; "" if there is one
    code: str  # of the residue: MSE
    number: int  # of the residue, by the authors
    insertion: str  # letter that follows the number, or ""
    place: int | None  # of the residue in SEQRES, from 0, if the file knows it
    occupancy: float
    xyz: tuple[float, float, float]  # Å


class Residue(NamedTuple):
    """What was seen of one residue."""

    code: str
    number: int
    insertion: str
    place: int | None
    atoms: Mapping[str, np.ndarray]  # (3,) each


Polymers = Mapping[str, Sequence[str]]  # chain -> the codes of all of its residues, seen or not


def parse_pdb(text: str, name: str) -> list[Chain]:
    """The protein chains of a PDB file, or of its first model.

    Raises:
        ValueError: what is wrong with the file.
    """
    lines = text.splitlines()
    if any(line.startswith("HEADER") for line in lines) and not any(line.split() == ["END"] for line in lines):
        raise ValueError("it has a HEADER and no END: it is cut short")
    polymers: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.startswith("SEQRES"):
            polymers[line[11].strip()] += line[19:70].split()
    return _chains(_pdb_atoms(lines), polymers, name)


def _pdb_atoms(lines: list[str]) -> Iterator[Atom]:
    last, ended = "", set()  # chains; what follows of one that has ended is no part of its polymer
    for at, line in enumerate(lines, 1):
        kind = line[:6].rstrip()
        if kind == "ENDMDL":
            return
        if kind == "TER":
            ended.add(line[21:22].strip() if len(line) > 21 else last)
        if kind not in ("ATOM", "HETATM"):
            continue
        last = chain = line[21:22].strip()
        atom = line[12:16]
        if chain in ended or atom.strip() not in ATOMS or (atom.startswith("CA") and line[17:20].strip() == "CA"):
            continue
        try:
            xyz = float(line[30:38]), float(line[38:46]), float(line[46:54])
            if len(line) < 54:  # the rest of a number may have been cut off
                raise ValueError
            where, number = line[54:60].strip(), int(line[22:26])
            yield Atom(
                chain,
                atom.strip(),
                line[16].strip(),
                line[17:20].strip(),
                number,
                line[26].strip(),
                None,
                float(where) if where else 1.0,
                xyz,
            )
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {at} is no line of an atom, or cut short: {line[:60]!r}") from error


def parse_cif(text: str, name: str) -> list[Chain]:
    """The protein chains of an mmCIF file, or of its first model, by gemmi where installed: ten times faster.

    Raises:
        ValueError: what is wrong with the file.
    """
    try:
        columns = _gemmi_columns(text) if find_spec("gemmi") else MMCIF2Dict(StringIO(text))
    except (ValueError, RuntimeError, KeyError, IndexError, StopIteration) as error:
        raise ValueError("it is no mmCIF file, or cut short") from error
    return _cif_chains(columns, name)


def parse_bcif(data: bytes, name: str) -> list[Chain]:
    """As `parse_cif`, of a BinaryCIF file."""
    return _cif_chains(parse_binary_cif(data, CATEGORIES), name)


def _gemmi_columns(text: str) -> dict[str, list[str]]:
    block = import_module("gemmi.cif").read_string(text)[0]
    return {
        f"{category}.{tag}": ["?" if value is None else value or "." for value in values]
        for category in CATEGORIES
        for tag, values in block.get_mmcif_category(f"{category}.").items()
    }


def _table(columns: Mapping[str, list], category: str, *tags: str) -> list[tuple]:
    """The rows of a category, with these of its columns; none if one of them is missing."""
    if any(f"{category}.{tag}" not in columns for tag in tags):
        return []
    found = [columns[f"{category}.{tag}"] for tag in tags]
    if len({len(column) for column in found}) > 1:
        raise ValueError(f"the columns of {category} differ in length: it is cut short")
    return list(zip(*found, strict=True))


def _cif_chains(columns: Mapping[str, list], name: str) -> list[Chain]:
    """label_* names the polymers of the file and their places in SEQRES, auth_* what people call them."""
    labels = ("label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_seq_id")
    rows = _table(columns, "_atom_site", *labels, "Cartn_x", "Cartn_y", "Cartn_z")
    if not rows:
        raise ValueError(f"it has no atoms: the columns _atom_site.{', '.join(labels)} and Cartn_x, y, z must be there")

    def column(tag: str, otherwise: Sequence) -> Sequence:
        found = columns.get(f"_atom_site.{tag}", otherwise)
        if len(found) != len(rows):
            raise ValueError(f"_atom_site.{tag} has {len(found)} rows instead of {len(rows)}: it is cut short")
        return found

    asym, seq = [row[3] for row in rows], [row[4] for row in rows]
    placed = any(_given(s) for s in seq)  # then what has no place is no part of a polymer: ligands and water
    chains, numbers = column("auth_asym_id", asym), column("auth_seq_id", seq)
    insertions, models = column("pdbx_PDB_ins_code", [""] * len(rows)), column("pdbx_PDB_model_num", [1] * len(rows))
    occupancies = column("occupancy", [1.0] * len(rows))
    atoms, called, n = [], {}, 0
    try:
        for n, (atom, altloc, code, label, place, *xyz) in enumerate(rows):
            if models[n] != models[0] or atom not in ATOMS or (placed and not _given(place)):
                continue
            if placed and not 1 <= int(place) <= LONGEST:
                raise ValueError(f"label_seq_id must be at least 1 and at most {LONGEST:,}, not {place}")
            chain = str(label if placed else chains[n])
            called[chain] = str(chains[n])
            x, y, z = map(float, xyz)
            atoms.append(
                Atom(
                    chain,
                    atom,
                    _given(altloc),
                    code,
                    int(numbers[n]) if _given(numbers[n]) else int(place),
                    _given(insertions[n]),
                    int(place) - 1 if placed else None,
                    float(occupancies[n]) if _given(occupancies[n]) else 1.0,
                    (x, y, z),
                )
            )
    except (ValueError, OverflowError) as error:
        raise ValueError(f"row {n + 1} of _atom_site is no atom, or cut short: {error}") from error
    return _chains(iter(atoms), _polymers(columns) if placed else {}, name, called)


def _given(value: object) -> str:
    """The value as text; "" for the two ways in which mmCIF leaves one out."""
    return "" if value in (".", "?", "", None) else str(value)


def _polymers(columns: Mapping[str, list]) -> Polymers:
    """All residues of each polymer in their order; of those that share a place, the first."""
    scheme = _table(columns, "_pdbx_poly_seq_scheme", "asym_id", "seq_id", "mon_id")
    if not scheme:
        entities = defaultdict(list)
        for entity, place, code in _table(columns, "_entity_poly_seq", "entity_id", "num", "mon_id"):
            entities[str(entity)].append((place, code))
        asyms = _table(columns, "_struct_asym", "id", "entity_id")
        scheme = [(asym, place, code) for asym, entity in asyms for place, code in entities[str(entity)]]
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for asym, place, code in scheme:
        found[str(asym)].setdefault(int(place), code)
    return {asym: [codes[place] for place in sorted(codes)] for asym, codes in found.items()}


def _chains(
    atoms: Iterator[Atom], polymers: Polymers, name: str, called: Mapping[str, str] | None = None
) -> list[Chain]:
    table: dict[str, dict[tuple, list[Atom]]] = defaultdict(lambda: defaultdict(list))
    for atom in atoms:
        key = (atom.number, atom.insertion) if atom.place is None else (atom.place,)
        table[atom.chain][key].append(atom)
    chains = []
    for chain, grouped in table.items():
        residues = [residue for rows in grouped.values() if _is_amino_acid(residue := _conformation(rows))]
        if residues:
            author = chain if called is None else called[chain]
            try:
                chains.append(_chain(f"{name}_{author}" if author else name, residues, polymers.get(chain)))
            except ValueError as error:
                raise ValueError(f"chain {author}: {error}") from error
    if not chains:
        others = f"; its other chains are {', '.join(sorted(table))}" if table else ""
        raise ValueError(f"it holds no protein chain{others}")
    return chains


def _conformation(rows: list[Atom]) -> Residue:
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


def _is_amino_acid(residue: Residue) -> bool:
    return residue.code in ONE_LETTER or {"N", "CA", "C"} <= set(residue.atoms)


def _chain(name: str, residues: list[Residue], polymer: Sequence[str] | None) -> Chain:
    letters = "".join(ONE_LETTER.get(residue.code, "X") for residue in residues)
    if residues[0].place is not None:
        places = [residue.place or 0 for residue in residues]
    elif polymer:
        whole = "".join(ONE_LETTER.get(code, "X") for code in polymer)
        places = _places_in(whole, letters, residues)
    else:
        places = _places_by_number(residues)
    whole = ["X"] * max(len(polymer or ()), max(places) + 1)
    for place, code in enumerate(polymer or ()):
        whole[place] = ONE_LETTER.get(code, "X")
    numbers, cb = [""] * len(whole), np.full((len(whole), 3), np.nan, np.float32)
    for place, letter, residue in zip(places, letters, residues, strict=True):
        whole[place] = letter
        numbers[place] = f"{residue.number}{residue.insertion}"
        cb[place] = residue.atoms.get("CA" if letter == "G" else "CB", np.nan)
    return Chain(name, numbered("".join(whole)), None, cb, numbers=tuple(numbers))


def _stretches(residues: list[Residue]) -> list[list[int]]:
    """Runs of residues, by index, that are bound to each other; where atoms are missing, those whose numbers go on."""
    runs = [[0]]
    for n in range(1, len(residues)):
        one, other = residues[n - 1], residues[n]
        if "C" in one.atoms and "N" in other.atoms:
            bound = np.linalg.norm(one.atoms["C"] - other.atoms["N"]) < BOND
        else:
            bound = other.number - one.number <= 1
        if bound:
            runs[-1].append(n)
        else:
            runs.append([n])
    return runs


def _places_by_number(residues: list[Residue]) -> list[int]:
    """Without SEQRES: numbers that jump where the chain is broken count the residues that were not seen."""
    places: list[int] = []
    for run in _stretches(residues):
        missing = residues[run[0]].number - residues[run[0] - 1].number - 1 if places else 0
        missing = missing if 0 <= missing <= JUMP else 1
        start = places[-1] + 1 + missing if places else 0
        places += range(start, start + len(run))
    return places


def _places_in(whole: str, letters: str, residues: list[Residue]) -> list[int]:
    """Where the stretches that were seen lie in SEQRES: in order, with the fewest letters that differ.

    Of equal ways, the one in which places keep step with the numbers of the residues.

    Raises:
        ValueError: if there is no way, or too many letters differ.
    """
    target, runs = np.array([*whole]), _stretches(residues)
    best = {0: (0.0, -1)}  # where the last stretch ends -> the cost so far, its index in `steps`
    steps: list[tuple[int, int]] = []  # where a stretch starts, index of the one before
    for n, run in enumerate(runs):
        own = np.array([*letters[run[0] : run[-1] + 1]])
        missing = residues[run[0]].number - residues[run[0] - 1].number - 1 if n else 0  # as the numbers say
        out_of_step = 0.5 if n else 0.0
        found, lowest = {}, (np.inf, -1)
        for start in range(len(target) - len(own) + 1):
            lowest = min(lowest, best.get(start, lowest))
            in_step = best.get(start - missing, lowest) if missing >= 0 else lowest
            cost, last = min(in_step, (lowest[0] + out_of_step, lowest[1]))
            differ = int(((target[start : start + len(own)] != own) & (own != "X")).sum())
            steps.append((start, last))
            found[start + len(own)] = (cost + differ, len(steps) - 1)
        best = found
    cost, at = min(best.values(), default=(np.inf, -1))
    if cost > 1 + MISPLACED * len(letters):
        raise ValueError("its atoms do not fit its SEQRES; correct or delete those lines")
    starts = []
    while at >= 0:
        start, at = steps[at]
        starts.append(start)
    return [start + n for start, run in zip(reversed(starts), runs, strict=True) for n in range(len(run))]
