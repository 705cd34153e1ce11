"""From a FASTA file to contact maps.

Shapes: L residues · K bins of distance
"""

import csv
import re
from pathlib import Path

import numpy as np
import torch
from Bio import SeqIO

from core.positions import Learned
from domains.adapter import to_device
from domains.protein.adapter import EDGES, Adapter
from domains.protein.data import LETTERS, Chain, collate, numbered
from domains.protein.figures import Panel, contact_maps
from domains.protein.metrics import ranked

LONGEST = 512  # residues; memory grows with the square and time with the cube
AMBIGUOUS = "XBZJUO"  # legal in a FASTA file, but none of the 20 amino acids: read as unknown
NEAREST = 6  # pairs closer than this in sequence are not listed


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Contacts for every record of a FASTA file.

    Writes for each record, under its cleaned name:

        NAME.png   the contact map
        NAME.csv   the L pairs most likely to touch, at least 6 apart in sequence: i, j (from 1), residues, P(contact)
        NAME.npz   `sequence`; `distance` (L, L, K), the probability that Cβ–Cβ lies in each bin; `edges` (K - 1,), the
                   borders between the bins in Å (the first bin begins at 0, the last has no end); `contact` (L, L), the
                   sum of the bins below 8 Å

    Args:
        source: path of the FASTA file.
    Raises:
        ValueError: if the file is none, or holds nothing, or a sequence that is empty, too long or not one of protein;
            nothing is written then.
    """
    learned = adapter.transformer.position
    longest = min(LONGEST, learned.extent[0]) if isinstance(learned, Learned) else LONGEST
    chains = read_fasta(Path(source), longest)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for chain in chains for path in write(adapter, chain, folder)]


@torch.inference_mode()
def write(adapter: Adapter, chain: Chain, folder: Path) -> list[Path]:
    adapter.eval()
    logits = adapter(to_device(collate([chain]), adapter.device))  # (1, L, L, K)
    contact = adapter.contacts(logits)[0].float().cpu().numpy()
    distance = logits[0].float().softmax(-1).cpu().numpy()
    letters = "".join((LETTERS + "X")[number] for number in chain.sequence)

    table = folder / f"{chain.name}.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["i", "j", "residue_i", "residue_j", "probability"])
        for i, j in list(zip(*ranked(contact, NEAREST), strict=True))[: len(chain)]:
            writer.writerow([i + 1, j + 1, letters[i], letters[j], f"{contact[i, j]:.4f}"])
    arrays = folder / f"{chain.name}.npz"
    np.savez_compressed(
        arrays, sequence=np.array(letters), distance=distance.astype(np.float16), edges=np.array(EDGES), contact=contact
    )
    picture = contact_maps(folder / f"{chain.name}.png", [Panel(f"{chain.name}   {len(chain)} residues", contact)])
    return [picture, table, arrays]


def read_fasta(path: Path, longest: int = LONGEST) -> list[Chain]:
    """The records of a FASTA file, under names that are fit for files and differ.

    Raises:
        ValueError: what is wrong with the file, and where.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; protein predicts from a FASTA file (>name, then a sequence)")
    try:
        with path.open(encoding="utf-8") as file:
            records = list(SeqIO.parse(file, "fasta"))
    except ValueError as error:  # text that is no FASTA, or no text at all
        raise ValueError(f"{path} is no FASTA file (>name, then a sequence)") from error
    if not records:
        raise ValueError(f"{path} holds no sequence; a FASTA file has lines >name, each followed by a sequence")
    chains: dict[str, Chain] = {}
    for record in records:
        letters = str(record.seq).upper().removesuffix("*")  # a translated stop
        wrong = sorted(set(letters) - set(LETTERS + AMBIGUOUS))
        if wrong:
            where = letters.index(wrong[0]) + 1
            raise ValueError(
                f"{path}, record {record.id!r}: {wrong[0]!r} at position {where} is no amino acid; "
                f"possible: {LETTERS}, and {AMBIGUOUS} for unknown ones"
            )
        if not 1 <= len(letters) <= longest:
            raise ValueError(f"{path}, record {record.id!r}: {len(letters)} residues; possible are 1 to {longest}")
        name = base = re.sub(r"[^A-Za-z0-9_.-]+", "_", record.id).strip("._")[:80] or "chain"
        again = 1
        while name.lower() in chains:
            again += 1
            name = f"{base}_{again}"
        chains[name.lower()] = Chain(name, numbered(letters))
    return list(chains.values())
