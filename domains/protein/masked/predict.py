"""Prediction of the amino acids at each position of protein sequences.

Shapes: L residues · F = 20 amino acids
"""

import csv
from pathlib import Path

import numpy as np
import torch

from domains.protein.chain import to_letters
from domains.protein.files import read_chains
from domains.protein.language import ESM_RESIDUES, FIRST_AMINO_ACID, LAST_AMINO_ACID, MASK, MAX_TOKENS, encode
from domains.protein.masked.adapter import Adapter

ROWS = 2**14  # tokens per batch
ESM_AMINO_ACIDS = ESM_RESIDUES[: LAST_AMINO_ACID - FIRST_AMINO_ACID + 1]


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Predict the amino acids at each position from the rest of the chain: L passes with one <mask> each.

    Writes for each chain NAME.csv: i (from 1), residue, its probability and that of every amino acid.

    Args:
        source: path of any file of protein (files.py); of structures the sequences are read.
    Raises:
        ValueError: if the file cannot be read, or a chain is too long; nothing is written then.
    """
    sequences = {chain.name: to_letters(chain.sequence) for chain in read_chains(source)}
    for name, sequence in sequences.items():
        if len(sequence) > MAX_TOKENS - 2:
            raise ValueError(f"{source}, {name}: {len(sequence)} residues; possible are 1 to {MAX_TOKENS - 2}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write(folder / f"{name}.csv", sequence, predict_residues(adapter, sequence))
        for name, sequence in sequences.items()
    ]


@torch.inference_mode()
def predict_residues(adapter: Adapter, sequence: str) -> np.ndarray:
    """Return P(amino acid) at each position, which is masked, (L, F)."""
    adapter.eval()
    tokens, L = encode([sequence]), len(sequence)
    hidden = tokens.repeat(L, 1)
    hidden[torch.arange(L), torch.arange(1, L + 1)] = MASK
    found = []
    for start in range(0, L, max(1, ROWS // (L + 2))):
        rows = torch.arange(start, min(L, start + max(1, ROWS // (L + 2))))
        logits = adapter({"tokens": hidden[rows].to(adapter.device)}).cpu()  # (rows, L + 2, K)
        found.append(
            logits[torch.arange(len(rows)), rows + 1, FIRST_AMINO_ACID : LAST_AMINO_ACID + 1].float().softmax(-1)
        )
    return torch.cat(found).numpy()


def write(path: Path, sequence: str, probability: np.ndarray) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["i", "residue", "probability", *ESM_AMINO_ACIDS])
        for n, (letter, row) in enumerate(zip(sequence, probability, strict=True)):
            own = f"{row[ESM_AMINO_ACIDS.index(letter)]:.4f}" if letter in ESM_AMINO_ACIDS else ""
            writer.writerow([n + 1, letter, own, *(f"{p:.4f}" for p in row)])
    return path
