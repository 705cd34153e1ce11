"""Protein chains in three splits.

`chains.npz`, beside this file, holds 1,000 gap-free PDB chains of 40 to 150 residues as plain arrays; `bundle.py` made
it and NOTICE names its source:

    split, name, length   one entry a chain: train, val or test; PDB id and chain, as in 1ABC_A; residues
    sequence (R,)         letters of all chains, one after the other, as bytes
    profile (20, R)       how often each amino acid stands there in the protein's family, in 1/255
    backbone (3, 3R)      steps from atom to atom along N, CA, C, N, CA, C …, in 0.01 Å, the first atom of a chain at 0

Shapes: B batch · N residues of the longest chain · L residues that the model sees · F = 20 amino acids
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.protein.config import DataConfig
from domains.sampling import Rngs

BUNDLE = Path(__file__).with_name("chains.npz")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(LETTERS)  # the number of X and of padding, a residue of no known kind
GLYCINE = LETTERS.index("G")
STEP = 0.01  # Å


@dataclass(frozen=True)
class Chain:
    """One protein chain.

    Attributes:
        name: as in 1ABC_A.
        sequence: (N,) numbers of amino acids in LETTERS, or UNKNOWN.
        profile: (N, F) frequencies in the protein's family, or None.
        cb: (N, 3) Cβ in Å (Cα of a glycine), or None where there is no structure.
    """

    name: str
    sequence: np.ndarray
    profile: np.ndarray | None = None
    cb: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sequence)


class Data(DomainData):
    """The bundled chains: 900 to train on, 40 to validate on and 60 to test on. They are the same for every seed.

    A batch holds whole chains, and which of their residues the model sees:

        sequence (B, N), profile (B, N, F)   the chains, padded with UNKNOWN and 0
        place (B, L), valid (B, L)           the residues seen, and which of them are real
        distance (B, L, L)                   between their Cβ, in Å
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        c = self.config
        if c.crop < 2 or c.crop % 2:
            raise ValueError(f"data.crop={c.crop} must be an even number of residues, at least 2")
        if not 0 <= c.sequence_only <= 1:
            raise ValueError(f"data.sequence_only={c.sequence_only} is a share of the samples and must lie in [0, 1]")
        if not hasattr(self, "splits"):
            self.splits = read_bundle(BUNDLE)

    def spec(self):
        return {"letters": LETTERS, "longest": max(len(chain) for chain in self.splits["train"])}

    def size(self, split):
        return len(self.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        chains = [self.splits[split][i] for i in indices]
        if rngs is None:
            return collate(chains)
        places = []
        for n, rng in zip(range(len(chains)), rngs, strict=True):
            places.append(two_stretches(len(chains[n]), self.config.crop, rng))
            if rng.random() < self.config.sequence_only:
                chains[n] = without_profile(chains[n])
        return collate(chains, places)


def collate(chains: Sequence[Chain], places: Sequence[np.ndarray] | None = None) -> Batch:
    """A batch of chains, of which the model sees the residues in `places`: all of them if None."""
    places = [np.arange(len(chain)) for chain in chains] if places is None else places
    B, N, L = len(chains), max(map(len, chains)), max(map(len, places))
    sequence = np.full((B, N), UNKNOWN, np.int64)
    profile = np.zeros((B, N, len(LETTERS)), np.float32)
    place, valid = np.zeros((B, L), np.int64), np.zeros((B, L), bool)
    cb = np.zeros((B, L, 3), np.float32)
    for b, (chain, seen) in enumerate(zip(chains, places, strict=True)):
        sequence[b, : len(chain)] = chain.sequence
        profile[b, : len(chain)] = one_hot(chain.sequence) if chain.profile is None else chain.profile
        place[b, : len(seen)], valid[b, : len(seen)] = seen, True
        if chain.cb is not None:
            cb[b, : len(seen)] = chain.cb[seen]
    batch = {"sequence": sequence, "profile": profile, "place": place, "valid": valid}
    if all(chain.cb is not None for chain in chains):
        batch["distance"] = np.linalg.norm(cb[:, :, None] - cb[:, None], axis=-1)  # (B, L, L)
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def two_stretches(length: int, crop: int, rng: np.random.Generator) -> np.ndarray:
    """`crop` residues of a chain of `length`, in two stretches, or all of them if there are no more.

    The gap between the stretches is as likely small as large, so that contacts far apart in sequence are seen as often
    as near ones; one stretch would show none that are farther apart than itself.
    """
    if length <= crop:
        return np.arange(length)
    half = crop // 2
    gap = rng.integers(0, length - crop + 1)
    first = rng.integers(0, length - crop - gap + 1)
    return np.concatenate([np.arange(half) + first, np.arange(half) + first + half + gap])


def without_profile(chain: Chain) -> Chain:
    return Chain(chain.name, chain.sequence, None, chain.cb)


def one_hot(sequence: np.ndarray) -> np.ndarray:
    """(N,) -> (N, F); an unknown residue is a row of zeros."""
    return np.eye(len(LETTERS) + 1, len(LETTERS), dtype=np.float32)[sequence]


def numbered(letters: str) -> np.ndarray:
    """Amino acids as numbers; what is not one of LETTERS is UNKNOWN."""
    return np.array([LETTERS.find(letter) % (UNKNOWN + 1) for letter in letters], np.int64)


def read_bundle(path: Path) -> dict[str, list[Chain]]:
    """The chains of each split. No code in the file can run: it is read without pickle."""
    with np.load(path, allow_pickle=False) as file:
        bundle = {key: file[key] for key in file.files}
    splits: dict[str, list[Chain]] = {"train": [], "val": [], "test": []}
    end = 0
    for split, name, length in zip(bundle["split"], bundle["name"], bundle["length"], strict=True):
        start, end = end, end + int(length)
        sequence = numbered(bundle["sequence"][start:end].tobytes().decode())
        steps = bundle["backbone"][:, 3 * start : 3 * end]  # (3, 3N)
        backbone = (steps.cumsum(1, dtype=np.int64).T * STEP).astype(np.float32).reshape(-1, 3, 3)  # (N, atoms, 3)
        profile = bundle["profile"][:, start:end].T / np.float32(255)
        splits[str(split)].append(Chain(str(name), sequence, profile, virtual_cb(backbone, sequence)))
    return splits


def virtual_cb(backbone: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """Where Cβ stands beside N, Cα, C (N, 3, 3) in a residue of ideal geometry; Cα in a glycine. (N, 3), in Å.

    The coefficients are those of trRosetta (Yang et al. 2020).
    """
    n, ca, c = backbone.swapaxes(0, 1)
    b, a = ca - n, c - ca
    cb = ca - 0.58273431 * np.cross(b, a) + 0.56802827 * b - 0.54067466 * a
    return np.where((sequence == GLYCINE)[:, None], ca, cb).astype(np.float32)
