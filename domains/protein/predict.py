"""From a file of protein, in any format, to contact maps and distances.

Shapes: L residues · K bins of distance
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from domains.adapter import to_device
from domains.data_warnings import warn_data
from domains.protein.adapter import Adapter, places
from domains.protein.alphabet import STATES, THREE
from domains.protein.chain import Chain, spelled
from domains.protein.config import Channel
from domains.protein.data import collate, pair_width
from domains.protein.features import SHALLOW, effective_depth
from domains.protein.figures import Panel, contact_maps
from domains.protein.files import read_chains
from domains.protein.metrics import NEAR, best, distances, median_distance, precision, ranked

LONGEST = 2048  # residues; time grows with the cube
MEMORY = 4e9  # bytes that one chain may take
COPIES = 12  # of the pairs, that are held at once
LISTED = 10  # pairs in a table of CASP, for each residue


class Predicted(NamedTuple):
    """What the model says of one chain."""

    distance: np.ndarray  # (L, L, K), the probability of each bin
    edges: np.ndarray  # (K - 1,), between the bins, in Å
    contact: np.ndarray  # (L, L), P(contact)
    confidence: np.ndarray  # (L,), in [0, 1]
    states: np.ndarray | None  # (L, S), the probability of each state of secondary structure


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Contacts and distances for every protein chain of a FASTA, A3M, Stockholm, PDB, mmCIF or BinaryCIF file.

    Writes for each chain, under its cleaned name:

        NAME.png            the contact map; below its diagonal the contacts of the structure, where the file has one,
                            and the residues that were not seen, in grey
        NAME.csv            the L pairs most likely to touch, at least 6 apart in sequence: i, j (from 1), residues,
                            what the authors of the structure call them, P(contact), the distance in the structure in Å
        NAME.residues.csv   of each residue how sure the model is of its distances: 1 - entropy / log K, the mean over
                            the residues at least 6 apart; 1 is certain. And the probability of helix, strand and
                            coil and of the 8 states of DSSP, if the model was trained with them
        NAME.rr             10 L pairs in CASP's format: i, j, 0, 8, P(contact)
        NAME.npz            `sequence`; `distance` (L, L, K), the probability that Cβ–Cβ lies in each bin; `edges`
                            (K - 1,), the borders between the bins in Å (the first bin begins at 0, the last has no
                            end); `contact` (L, L), the sum of the bins below 8 Å; `median` (L, L), the distance that
                            half of the probability lies below; `confidence` (L,)

    A model that reads alignments warns of one that is too shallow to say much.

    Args:
        source: path of the file.
    Raises:
        ValueError: if the file cannot be read, or a chain is too long for the model or 4 GB; nothing is written then.
    """
    longest = min(LONGEST, places(adapter))
    chains = read_chains(source)
    for chain in chains:
        if len(chain) > longest:
            raise ValueError(f"{source}, {chain.name}: {len(chain)} residues; possible are 1 to {longest}")
        if (need := memory(adapter, len(chain))) > MEMORY:
            raise ValueError(
                f"{source}, {chain.name}: {len(chain)} residues take {need / 1e9:.1f} GB, and {MEMORY / 1e9:.0f} are "
                "allowed; cut the chain into domains"
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
    return [path for chain in chains for path in write(predicted(adapter, chain), chain, folder)]


def memory(adapter: Adapter, length: int) -> float:
    """Bytes that a chain of so many residues takes: 4 L² for each number of a pair that is held at once."""
    pairs = COPIES * adapter.config.pair_dim + 2 * adapter.config.num_heads + 3 * pair_width(adapter.channels)
    return 4.0 * length**2 * (pairs + 4 * (len(adapter.edges) + 1))


@torch.inference_mode()
def predicted(adapter: Adapter, chain: Chain) -> Predicted:
    adapter.eval()
    said = adapter(to_device(collate([chain], channels=adapter.channels), adapter.device))
    contact = adapter.contacts(said)[0].cpu().numpy()
    distance = said.distance[0].float().softmax(-1).cpu()
    surprise = torch.special.entr(distance).sum(-1).numpy() / np.log(distance.shape[-1])  # (L, L)
    place = np.arange(len(chain))
    far = np.abs(place[:, None] - place) >= NEAR
    confidence = 1 - (surprise * far).sum(1) / np.maximum(far.sum(1), 1)
    states = None if said.states is None else said.states[0].float().softmax(-1).cpu().numpy()
    edges = adapter.edges.float().cpu().numpy()
    return Predicted(distance.numpy(), edges, contact, np.where(far.any(1), confidence, 0.0), states)


def write(prediction: Predicted, chain: Chain, folder: Path) -> list[Path]:
    distance, edges, contact, confidence, states = prediction
    letters, true = spelled(chain.sequence), None if chain.cb is None else distances(chain)
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
        known = [] if states is None else [*THREE, *STATES]
        writer.writerow(["i", "residue", "number", "confidence", *known])
        for n, number in enumerate(numbers(chain)):
            writer.writerow(
                [n + 1, letters[n], number, f"{confidence[n]:.4f}", *map("{:.4f}".format, likely(states, n))]
            )
    write_casp(casp, chain.name, letters, i[: LISTED * len(chain)], j[: LISTED * len(chain)], contact)
    np.savez_compressed(
        arrays,
        sequence=np.array(letters),
        distance=distance.astype(np.float16),
        edges=edges.astype(np.float32),
        contact=contact,
        median=median_distance(distance, edges).astype(np.float32),
        confidence=confidence.astype(np.float32),
    )
    return paths


def likely(states: np.ndarray | None, n: int) -> list[float]:
    """The probability of each of THREE and of each of STATES in place n, of (L, S)."""
    if states is None:
        return []
    return [float(sum(states[n, STATES.index(s)] for s in kin)) for kin in THREE.values()] + states[n].tolist()


def numbers(chain: Chain) -> list[str]:
    """What the authors of the structure call each residue, or its place from 1 where there is no structure."""
    return [*chain.numbers] if chain.numbers else [str(n + 1) for n in range(len(chain))]


def write_pairs(
    path: Path, chain: Chain, i: np.ndarray, j: np.ndarray, contact: np.ndarray, true: np.ndarray | None
) -> None:
    letters, called = spelled(chain.sequence), numbers(chain)
    columns = "i j residue_i residue_j number_i number_j probability distance"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split())
        for a, b in zip(i, j, strict=True):
            distance = "" if true is None or np.isnan(true[a, b]) else f"{true[a, b]:.2f}"
            pair = [a + 1, b + 1, letters[a], letters[b], called[a], called[b]]
            writer.writerow([*pair, f"{contact[a, b]:.4f}", distance])


def write_casp(path: Path, name: str, letters: str, i: np.ndarray, j: np.ndarray, contact: np.ndarray) -> None:
    """Contacts in the format RR of CASP: the sequence in lines of 50, then i j 0 8 P(contact), the likeliest first."""
    lines = ["PFRMAT RR", f"TARGET {name}", "METHOD residue-pair attention", "MODEL 1"]
    lines += [letters[start : start + 50] for start in range(0, len(letters), 50)]
    lines += [f"{a + 1} {b + 1} 0 8 {contact[a, b]:.5f}" for a, b in zip(i, j, strict=True)]
    path.write_text("\n".join([*lines, "END"]) + "\n")
