"""Where the residues that were seen stand in the sequence of a chain, by SEQRES or by their numbers.

Shapes: N residues of a chain
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from domains.protein.remarks import Remarks

BOND = 2.0  # Å; farther apart, C and the next N are not bound to each other
TRACE = 4.5  # Å; farther apart, the Cα of two residues are not next to each other
JUMP = 100  # missing residues; numbers that jump farther are a way of counting, such as 1001 for a fused domain
JUMPS = f"breaks where numbers fall, or rise by more than {JUMP}, guessed to be one missing residue"
MISPLACED = 0.1  # share of residues that may differ from SEQRES
UNFIT = "its atoms do not fit its SEQRES; correct or delete those lines"


class Residue(NamedTuple):
    """The observed atoms of one residue."""

    code: str  # MSE
    number: int  # by the authors
    insertion: str  # letter that follows the number, or ""
    place: int | None  # in SEQRES, from 0, as the file says; of a file without SEQRES, just a number
    atoms: Mapping[str, np.ndarray]  # (3,) each


def places(residues: Sequence[Residue], letters: str, whole: str, name: str, remarks: Remarks) -> list[int]:
    """The place of each residue, from 0.

    Args:
        letters: of the residues, (N,).
        whole: letters of SEQRES, or "" without it.
        name: of the chain, for remarks.
    Raises:
        ValueError: if residues do not fit SEQRES.
    """
    said = [residue.place for residue in residues]
    if not whole:
        return _places_by_number(residues, name, remarks)
    if all(place is not None and 0 <= place < len(whole) for place in said) and len(set(said)) == len(said):
        found = [place or 0 for place in said]
        if not _too_many(sum(a not in ("X", whole[n]) for a, n in zip(letters, found, strict=True)), letters):
            return found
    return _places_in(whole, letters, residues)


def _too_many(differ: float, letters: str) -> bool:
    return differ > 1 + MISPLACED * len(letters)


def next_to(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether one residue's atoms are bound to those of the other, which follows; by Cα where C or N is missing."""
    if "C" in one and "N" in other:
        return bool(np.linalg.norm(one["C"] - other["N"]) < BOND)
    return "CA" in one and "CA" in other and bool(np.linalg.norm(one["CA"] - other["CA"]) < TRACE)


def _stretches(residues: Sequence[Residue]) -> list[list[int]]:
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


def _places_by_number(residues: Sequence[Residue], name: str, remarks: Remarks) -> list[int]:
    """Without SEQRES: numbers that jump where the chain is broken count the residues that were not seen."""
    said = [residue.place for residue in residues]
    if None not in said and len(set(said)) == len(said):  # counts all residues, other than the authors' numbers
        residues = [residue._replace(number=place) for residue, place in zip(residues, said, strict=True)]
    places: list[int] = []
    for run in _stretches(residues):
        missing = residues[run[0]].number - residues[run[0] - 1].number - 1 if places else 0
        if not 0 <= missing <= JUMP:
            remarks[JUMPS].append(name)
            missing = 1
        start = places[-1] + 1 + missing if places else 0
        places += range(start, start + len(run))
    return places


def _places_in(whole: str, letters: str, residues: Sequence[Residue]) -> list[int]:
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
    if _too_many(cost, letters):
        raise ValueError(UNFIT)
    starts = []
    while at >= 0:
        start, at = steps[at]
        starts.append(start)
    return [start + n for start, run in zip(reversed(starts), runs, strict=True) for n in range(len(run))]
