"""A protein chain: its sequence, and data on each residue.

Shapes: N residues · F = 20 amino acids
"""

from dataclasses import dataclass

import numpy as np

from domains.protein.alignment import Alignment
from domains.protein.alphabet import AMINO_ACIDS

GLYCINE = AMINO_ACIDS.index("G")


@dataclass(frozen=True)
class Chain:
    """One protein chain.

    Unresolved residues (in the PDB's SEQRES, but without atoms) are included, so that |i - j| is the separation in
    sequence; their coordinates are NaN.

    Attributes:
        name: as in 1ABC_A.
        sequence: (N,) codes of amino acids, or UNKNOWN.
        profile: (N, F) frequencies in the alignment of homologues, or None.
        cb: (N, 3) Cβ in Å (Cα of glycine), NaN if unresolved; or None without a structure.
        alignment: the multiple sequence alignment, or None.
        ss8: (N,) codes of secondary structure in SS8_STATES, or None if unknown.
        residue_numbers: the author numbering of the structure, such as 52A, "" if unresolved; or None.
    """

    name: str
    sequence: np.ndarray
    profile: np.ndarray | None = None
    cb: np.ndarray | None = None
    alignment: Alignment | None = None
    ss8: np.ndarray | None = None
    residue_numbers: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.sequence)


def one_hot(sequence: np.ndarray) -> np.ndarray:
    """Return the one-hot encoding (N, F) of a sequence (N,); an unknown residue is a row of zeros."""
    return np.eye(len(AMINO_ACIDS) + 1, len(AMINO_ACIDS), dtype=np.float32)[sequence]


def to_letters(sequence: np.ndarray) -> str:
    """Return a sequence as one-letter codes; X is UNKNOWN."""
    return "".join((AMINO_ACIDS + "X")[number] for number in sequence)


def resolved_mask(chain: Chain) -> np.ndarray:
    """Return the mask of residues with a resolved Cβ, (N,); all False without a structure."""
    return np.zeros(len(chain), bool) if chain.cb is None else np.isfinite(chain.cb[:, 0])


def virtual_cb(backbone: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Return Cβ (N, 3) in Å of an ideal residue from its N, Cα, C (N, 3, 3); Cα for glycine.

    The coefficients are those of trRosetta (Yang et al. 2020).
    """
    n, ca, c = backbone.swapaxes(0, 1)
    b, a = ca - n, c - ca
    cb = ca - 0.58273431 * np.cross(b, a) + 0.56802827 * b - 0.54067466 * a
    return np.where((sequence == GLYCINE)[:, None], ca, cb).astype(np.float32)
