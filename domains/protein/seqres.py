"""Alignment of the resolved residues of a chain to its full sequence, by SEQRES or by residue numbers.

Shapes: N residues of a chain
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from domains.protein.read_warnings import ReadWarnings

BOND = 2.0  # Å; the largest distance of a peptide bond from C to the next N
TRACE = 4.5  # Å; the largest distance of the Cα of adjacent residues
JUMP = 100  # missing residues; larger jumps are a numbering convention, such as 1001 for a fused domain
JUMPS = f"breaks where numbers fall, or rise by more than {JUMP}, guessed to be one missing residue"
MISPLACED = 0.1  # share of residues that may differ from SEQRES
UNFIT = "its atoms do not fit its SEQRES; correct or delete those lines"


class Residue(NamedTuple):
    """The resolved atoms of one residue."""

    code: str  # MSE
    number: int  # author numbering
    insertion: str  # letter that follows the number, or ""
    seqres_index: int | None  # in SEQRES, from 0, as given by the file; without SEQRES, just a number
    atoms: Mapping[str, np.ndarray]  # (3,) each


def align_to_seqres(
    residues: Sequence[Residue], letters: str, whole: str, name: str, warnings: ReadWarnings
) -> list[int]:
    """Return the index of each residue in the sequence, from 0.

    Args:
        letters: of the residues, (N,).
        whole: letters of SEQRES, or "" without it.
        name: of the chain, for warnings.
    Raises:
        ValueError: if residues do not fit SEQRES.
    """
    seqres_indices = [residue.seqres_index for residue in residues]
    if not whole:
        return _index_by_number(residues, name, warnings)
    if all(seqres_index is not None and 0 <= seqres_index < len(whole) for seqres_index in seqres_indices) and len(
        set(seqres_indices)
    ) == len(seqres_indices):
        found = [seqres_index or 0 for seqres_index in seqres_indices]
        if not _too_many_mismatches(
            sum(a not in ("X", whole[n]) for a, n in zip(letters, found, strict=True)), letters
        ):
            return found
    return _align_runs(whole, letters, residues)


def _too_many_mismatches(differ: float, letters: str) -> bool:
    return differ > 1 + MISPLACED * len(letters)


def bonded(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Return whether a residue is bonded to the following one; by Cα if C or N is missing."""
    if "C" in one and "N" in other:
        return bool(np.linalg.norm(one["C"] - other["N"]) < BOND)
    return "CA" in one and "CA" in other and bool(np.linalg.norm(one["CA"] - other["CA"]) < TRACE)


def _bonded_runs(residues: Sequence[Residue]) -> list[list[int]]:
    """Return runs of bonded residues, by index; if atoms are missing, of consecutive numbers."""
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


def _index_by_number(residues: Sequence[Residue], name: str, warnings: ReadWarnings) -> list[int]:
    """Return indices without SEQRES: jumps of the numbers at chain breaks count the unresolved residues."""
    seqres_indices = [residue.seqres_index for residue in residues]
    if None not in seqres_indices and len(set(seqres_indices)) == len(
        seqres_indices
    ):  # unlike author numbering, it counts all residues
        residues = [
            residue._replace(number=seqres_index)
            for residue, seqres_index in zip(residues, seqres_indices, strict=True)
        ]
    indices: list[int] = []
    for run in _bonded_runs(residues):
        missing = residues[run[0]].number - residues[run[0] - 1].number - 1 if indices else 0
        if not 0 <= missing <= JUMP:
            warnings[JUMPS].append(name)
            missing = 1
        start = indices[-1] + 1 + missing if indices else 0
        indices += range(start, start + len(run))
    return indices


def _align_runs(whole: str, letters: str, residues: Sequence[Residue]) -> list[int]:
    """Align the runs of resolved residues to SEQRES: in order, with the fewest mismatches (dynamic programming).

    Ties prefer gaps that agree with the residue numbers.

    Raises:
        ValueError: if there is no alignment, or it has too many mismatches.
    """
    target, runs = np.array([*whole]), _bonded_runs(residues)
    best = {0: (0.0, -1)}  # end of the last run -> (cost so far, its index in `steps`)
    steps: list[tuple[int, int]] = []  # (start of a run, index of the previous one)
    for n, run in enumerate(runs):
        own = np.array([*letters[run[0] : run[-1] + 1]])
        missing = residues[run[0]].number - residues[run[0] - 1].number - 1 if n else 0  # by the residue numbers
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
    if _too_many_mismatches(cost, letters):
        raise ValueError(UNFIT)
    starts = []
    while at >= 0:
        start, at = steps[at]
        starts.append(start)
    return [start + n for start, run in zip(reversed(starts), runs, strict=True) for n in range(len(run))]
