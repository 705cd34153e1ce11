"""From protein sequences to what could stand in each place.

Shapes: L residues · F = 20 amino acids
"""

import csv
from pathlib import Path

import numpy as np
import torch

from domains.protein.chain import spelled
from domains.protein.files import read_chains
from domains.protein.language import ESM_LETTERS, FIRST, LAST, LONGEST, MASK, encode
from domains.protein.masked.adapter import Adapter

ROWS = 2**14  # tokens that the model reads at once
AMINO_ACIDS = ESM_LETTERS[: LAST - FIRST + 1]


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """The probability of each amino acid in each place, as the rest of the chain has it: L passes with one <mask> each.

    Writes for each chain NAME.csv: i (from 1), residue, its probability and that of every amino acid.

    Args:
        source: path of any file of protein (files.py); of structures the sequences are read.
    Raises:
        ValueError: if the file cannot be read, or a chain is too long; nothing is written then.
    """
    sequences = {chain.name: spelled(chain.sequence) for chain in read_chains(source)}
    for name, sequence in sequences.items():
        if len(sequence) > LONGEST - 2:
            raise ValueError(f"{source}, {name}: {len(sequence)} residues; possible are 1 to {LONGEST - 2}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [write(folder / f"{name}.csv", sequence, guesses(adapter, sequence)) for name, sequence in sequences.items()]


@torch.inference_mode()
def guesses(adapter: Adapter, sequence: str) -> np.ndarray:
    """P(amino acid) in each place, with that place hidden, (L, F)."""
    adapter.eval()
    tokens, L = encode([sequence]), len(sequence)
    hidden = tokens.repeat(L, 1)
    hidden[torch.arange(L), torch.arange(1, L + 1)] = MASK
    found = []
    for start in range(0, L, max(1, ROWS // (L + 2))):
        rows = torch.arange(start, min(L, start + max(1, ROWS // (L + 2))))
        logits = adapter({"tokens": hidden[rows].to(adapter.device)}).cpu()  # (rows, L + 2, K)
        found.append(logits[torch.arange(len(rows)), rows + 1, FIRST : LAST + 1].float().softmax(-1))
    return torch.cat(found).numpy()


def write(path: Path, sequence: str, probability: np.ndarray) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["i", "residue", "probability", *AMINO_ACIDS])
        for n, (letter, row) in enumerate(zip(sequence, probability, strict=True)):
            own = f"{row[AMINO_ACIDS.index(letter)]:.4f}" if letter in AMINO_ACIDS else ""
            writer.writerow([n + 1, letter, own, *(f"{p:.4f}" for p in row)])
    return path
