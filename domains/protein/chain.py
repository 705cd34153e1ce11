"""One protein chain: the letters that it is written in, and what is known of each residue.

Shapes: N residues · F = 20 amino acids
"""

from dataclasses import dataclass

import numpy as np

from domains.protein.alignment import Alignment
from domains.protein.alphabet import LETTERS

GLYCINE = LETTERS.index("G")


@dataclass(frozen=True)
class Chain:
    """One protein chain.

    A residue that was there in the experiment and was not seen in it (SEQRES of the PDB) counts like any other, so that
    |i - j| is the separation in sequence; its coordinates are NaN.

    Attributes:
        name: as in 1ABC_A.
        sequence: (N,) numbers of amino acids in LETTERS, or UNKNOWN.
        profile: (N, F) frequencies in the protein's family, or None.
        cb: (N, 3) Cβ in Å (Cα of a glycine), NaN where it was not seen; or None where there is no structure.
        alignment: the family itself, or None.
        states: (N,) numbers of secondary structure in STATES, or None where nobody determined it.
        numbers: what the authors of the structure call the residues, as in 52A, "" where one was not seen; or None.
    """

    name: str
    sequence: np.ndarray
    profile: np.ndarray | None = None
    cb: np.ndarray | None = None
    alignment: Alignment | None = None
    states: np.ndarray | None = None
    numbers: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.sequence)


def one_hot(sequence: np.ndarray) -> np.ndarray:
    """(N,) -> (N, F); an unknown residue is a row of zeros."""
    return np.eye(len(LETTERS) + 1, len(LETTERS), dtype=np.float32)[sequence]


def spelled(sequence: np.ndarray) -> str:
    """Numbers as letters; X is UNKNOWN."""
    return "".join((LETTERS + "X")[number] for number in sequence)


def seen(chain: Chain) -> np.ndarray:
    """Of which residues the experiment saw Cβ, (N,); of none without a structure."""
    return np.zeros(len(chain), bool) if chain.cb is None else np.isfinite(chain.cb[:, 0])


def virtual_cb(backbone: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Where Cβ stands beside N, Cα, C (N, 3, 3) in a residue of ideal geometry; Cα in a glycine. (N, 3), in Å.

    The coefficients are those of trRosetta (Yang et al. 2020).
    """
    n, ca, c = backbone.swapaxes(0, 1)
    b, a = ca - n, c - ca
    cb = ca - 0.58273431 * np.cross(b, a) + 0.56802827 * b - 0.54067466 * a
    return np.where((sequence == GLYCINE)[:, None], ca, cb).astype(np.float32)
