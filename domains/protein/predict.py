"""Prediction of contact maps and distances from a file of sequences or structures.

Shapes: L residues · K bins of distance
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from domains.adapter import to_device
from domains.data_warnings import warn_data
from domains.protein.adapter import Adapter, max_positions
from domains.protein.alphabet import SS3_GROUPS, SS8_STATES
from domains.protein.chain import Chain, to_letters
from domains.protein.config import Channel
from domains.protein.data import collate, pair_width
from domains.protein.features import SHALLOW, effective_depth
from domains.protein.figures import Panel, contact_maps
from domains.protein.files import read_chains
from domains.protein.metrics import NEAR, best, distances, median_distance, precision, ranked

MAX_LENGTH = 2048  # residues; time grows with the cube
MAX_MEMORY = 4e9  # bytes that one chain may take
PAIR_COPIES = 12  # of the pair representation in memory at once
LISTED_PAIRS = 10  # pairs in a CASP file per residue


class ChainPrediction(NamedTuple):
    """The predictions for one chain."""

    distance: np.ndarray  # (L, L, K), the probability of each bin
    bin_edges: np.ndarray  # (K - 1,), between the bins, in Å
    contact: np.ndarray  # (L, L), P(contact)
    confidence: np.ndarray  # (L,), in [0, 1]
    ss8: np.ndarray | None  # (L, S), the probability of each state of secondary structure


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Predict contacts and distances for each protein chain of a FASTA, A3M, Stockholm, PDB, mmCIF or BinaryCIF file.

    Writes for each chain, under its cleaned name:

        NAME.png            the contact map; below its diagonal the contacts of the structure, where the file has one,
                            and the residues that were not seen, in grey
        NAME.csv            the L pairs most likely to touch, at least 6 apart in sequence: i, j (from 1), residues,
                            what the authors of the structure call them, P(contact), the distance in the structure in Å
        NAME.residues.csv   of each residue how sure the model is of its distances: 1 - entropy / log K, the mean over
                            the residues at least 6 apart; 1 is certain. And the probability of helix, strand and
                            coil and of the 8 states of DSSP, if the model was trained with them
        NAME.rr             10 L pairs in CASP's format: i, j, 0, 8, P(contact)
        NAME.npz            `sequence`; `distance` (L, L, K), the probability that Cβ–Cβ lies in each bin; `bin_edges`
                            (K - 1,), the borders between the bins in Å (the first bin begins at 0, the last has no
                            end); `contact` (L, L), the sum of the bins below 8 Å; `median` (L, L), the distance that
                            half of the probability lies below; `confidence` (L,)

    A model that reads alignments warns of one that is too shallow to say much.

    Args:
        source: path of the file.
    Raises:
        ValueError: if the file cannot be read, or a chain is too long for the model or 4 GB; nothing is written then.
    """
    max_length = min(MAX_LENGTH, max_positions(adapter))
    chains = read_chains(source)
    for chain in chains:
        if len(chain) > max_length:
            raise ValueError(f"{source}, {chain.name}: {len(chain)} residues; possible are 1 to {max_length}")
        if (need := estimate_memory(adapter, len(chain))) > MAX_MEMORY:
            raise ValueError(
                f"{source}, {chain.name}: {len(chain)} residues take {need / 1e9:.1f} GB, and {MAX_MEMORY / 1e9:.0f}"
                " are allowed; cut the chain into domains"
            )
    if {*adapter.channels} - {Channel.baseline}:  # it reads alignments
        for chain in chains:
            if chain.alignment is not None and (depth := effective_depth(chain.alignment)) < SHALLOW:
                warn_data(
                    f"{source}, {chain.name}: its alignment has {depth:.1f} effective sequences; with fewer than "
                    f"{SHALLOW}, residues that change together say little"
                )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for chain in chains for path in write(predict_chain(adapter, chain), chain, folder)]


def estimate_memory(adapter: Adapter, length: int) -> float:
    """Estimate the bytes of a prediction for a chain of `length` residues: 4 L² per pair feature in memory at once."""
    pairs = PAIR_COPIES * adapter.config.pair_dim + 2 * adapter.config.num_heads + 3 * pair_width(adapter.channels)
    return 4.0 * length**2 * (pairs + 4 * (len(adapter.bin_edges) + 1))


@torch.inference_mode()
def predict_chain(adapter: Adapter, chain: Chain) -> ChainPrediction:
    adapter.eval()
    prediction = adapter(to_device(collate([chain], channels=adapter.channels), adapter.device))
    contact = adapter.contacts(prediction)[0].cpu().numpy()
    distance = prediction.distance[0].float().softmax(-1).cpu()
    nll = torch.special.entr(distance).sum(-1).numpy() / np.log(distance.shape[-1])  # (L, L)
    place = np.arange(len(chain))
    far = np.abs(place[:, None] - place) >= NEAR
    confidence = 1 - (nll * far).sum(1) / np.maximum(far.sum(1), 1)
    states = None if prediction.ss8 is None else prediction.ss8[0].float().softmax(-1).cpu().numpy()
    bin_edges = adapter.bin_edges.float().cpu().numpy()
    return ChainPrediction(distance.numpy(), bin_edges, contact, np.where(far.any(1), confidence, 0.0), states)


def write(prediction: ChainPrediction, chain: Chain, folder: Path) -> list[Path]:
    distance, bin_edges, contact, confidence, states = prediction
    letters, true = to_letters(chain.sequence), None if chain.cb is None else distances(chain)
    title = f"{chain.name}   {len(chain)} residues"
    if true is not None and best(contact, true, 5)[0].size:
        title += f"   P@L/5 {precision(contact, true, 5):.2f}"
    paths = [folder / f"{chain.name}{suffix}" for suffix in (".png", ".csv", ".residues.csv", ".rr", ".npz")]
    picture, pairs, residues, casp, arrays = paths
    contact_maps(picture, [Panel(title, contact, true)])
    i, j = ranked(contact, NEAR)
    write_pairs(pairs, chain, i[: len(chain)], j[: len(chain)], contact, true)
    with open(residues, "w", newline="") as file:
        writer = csv.writer(file)
        known = [] if states is None else [*SS3_GROUPS, *SS8_STATES]
        writer.writerow(["i", "residue", "number", "confidence", *known])
        for n, number in enumerate(residue_numbers(chain)):
            writer.writerow(
                [n + 1, letters[n], number, f"{confidence[n]:.4f}", *map("{:.4f}".format, ss_probabilities(states, n))]
            )
    write_casp(casp, chain.name, letters, i[: LISTED_PAIRS * len(chain)], j[: LISTED_PAIRS * len(chain)], contact)
    np.savez_compressed(
        arrays,
        sequence=np.array(letters),
        distance=distance.astype(np.float16),
        bin_edges=bin_edges.astype(np.float32),
        contact=contact,
        median=median_distance(distance, bin_edges).astype(np.float32),
        confidence=confidence.astype(np.float32),
    )
    return paths


def ss_probabilities(states: np.ndarray | None, n: int) -> list[float]:
    """Return the probabilities of SS3_GROUPS and of SS8_STATES at residue n, from (L, S)."""
    if states is None:
        return []
    return [float(sum(states[n, SS8_STATES.index(s)] for s in group)) for group in SS3_GROUPS.values()] + states[
        n
    ].tolist()


def residue_numbers(chain: Chain) -> list[str]:
    """Return the author numbering of the residues, or the numbers from 1 without a structure."""
    return [*chain.residue_numbers] if chain.residue_numbers else [str(n + 1) for n in range(len(chain))]


def write_pairs(
    path: Path, chain: Chain, i: np.ndarray, j: np.ndarray, contact: np.ndarray, true: np.ndarray | None
) -> None:
    letters, called = to_letters(chain.sequence), residue_numbers(chain)
    columns = "i j residue_i residue_j number_i number_j probability distance"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split())
        for a, b in zip(i, j, strict=True):
            distance = "" if true is None or np.isnan(true[a, b]) else f"{true[a, b]:.2f}"
            pair = [a + 1, b + 1, letters[a], letters[b], called[a], called[b]]
            writer.writerow([*pair, f"{contact[a, b]:.4f}", distance])


def write_casp(path: Path, name: str, letters: str, i: np.ndarray, j: np.ndarray, contact: np.ndarray) -> None:
    """Write contacts in CASP's RR format: the sequence in lines of 50, then i j 0 8 P(contact), the most likely
    first."""
    lines = ["PFRMAT RR", f"TARGET {name}", "METHOD residue-pair attention", "MODEL 1"]
    lines += [letters[start : start + 50] for start in range(0, len(letters), 50)]
    lines += [f"{a + 1} {b + 1} 0 8 {contact[a, b]:.5f}" for a, b in zip(i, j, strict=True)]
    path.write_text("\n".join([*lines, "END"]) + "\n")
