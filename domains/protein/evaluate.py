"""Evaluation of contact prediction, beside baselines without a network."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from domains.adapter import Batch, Evaluation, Score, to_device
from domains.data_warnings import warn_data
from domains.protein import features
from domains.protein.adapter import Adapter
from domains.protein.alphabet import SS3_GROUPS, SS8_STATES
from domains.protein.chain import Chain
from domains.protein.data import Data, sequence_alone
from domains.protein.figures import Panel, contact_maps, precision_bars
from domains.protein.metrics import (
    CONTACT,
    LONG_RANGE,
    RANGES,
    ProfilePairs,
    SeparationPrior,
    best,
    calibration,
    distances,
    lddt,
    median_distance,
    precision,
)

SHARES = {"L/5": 5, "L/2": 2, "L": 1}
DEEP = 120  # effective sequences
DEPTHS = {  # of alignments, at 62 %
    f"Meff < {features.SHALLOW}": (0, features.SHALLOW),
    f"Meff {features.SHALLOW}-{DEEP}": (features.SHALLOW, DEEP),
    f"Meff > {DEEP}": (DEEP, np.inf),
}
PANELS = 6
SS8_TO_SS3 = np.array(
    [[state in kin for kin in SS3_GROUPS.values()].index(True) for state in SS8_STATES]
)  # the group of each state


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Evaluate the model and baselines without a network on the same chains; baselines are fitted to the training
    chains.

    Long range is 24 residues and more apart in sequence, medium 12 to 23, short 6 to 11; the metrics without a range
    in their name are of long range. Where chains have alignments: two more predictors, and P@L/5 by depth.

    Writes precision.csv (a line for each chain), contacts.png (chains from the best predicted to the worst, at even
    distances in rank, so that none is picked) and precision.png.

    Raises:
        ValueError: for an unknown split.
    """
    batches = list(data.eval_dataloader(split))
    chains, folder = data.splits[split], Path(folder)
    found, alone = run_model(adapter, batches), run_model(adapter, map(without_alignment, batches))
    scores = {"model": found.contacts, "model, sequence alone": alone.contacts} | baselines(
        data.splits["train"], chains
    )
    true = [distances(chain) for chain in chains]
    if empty := [c.name for c, distance in zip(chains, true, strict=True) if not best(distance, distance, 1)[0].size]:
        warn_data(
            f"{len(empty)} of {len(chains)} chains (first: {empty[0]}) have no two residues at long range that were "
            "seen, and count as 0 in its precision"
        )
    table = {name: precisions(s, true) for name, s in scores.items()}  # (chains, ranges, shares) each
    long = {name: dict(zip(SHARES, values[:, -1].mean(0).tolist(), strict=True)) for name, values in table.items()}
    depth = np.array([1 if c.alignment is None else features.effective_depth(c.alignment) for c in chains])

    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "precision.csv", chains, depth, table)
    ranks = np.argsort(-table["model"][:, -1, 0], kind="stable")
    shown = ranks[np.linspace(0, len(ranks) - 1, min(PANELS, len(ranks))).round().astype(int)]
    titles = [f"{c.name}   P@L/5 {values[-1, 0]:.2f}" for c, values in zip(chains, table["model"], strict=True)]
    figures = [
        contact_maps(folder / "contacts.png", [Panel(titles[n], found.contacts[n], true[n]) for n in shown]),
        precision_bars(
            folder / "precision.png", {name: [*values.values()] for name, values in long.items()}, [*SHARES]
        ),
    ]
    brier, bins = calibration(found.contacts, true)
    metrics = {f"{name} P@{cut}": value for name, values in long.items() for cut, value in values.items()}
    metrics |= {
        f"{name} {span} P@{cut}": float(values[:, r, c].mean())
        for name, values in table.items()
        for r, span in enumerate([*RANGES][:-1])
        for c, cut in enumerate(SHARES)
    }
    metrics |= by_depth(depth, table) | ss_accuracy(chains, found.ss8)
    metrics |= {
        "loss": found.loss,
        "loss, sequence alone": alone.loss,
        "lDDT": float(np.mean([lddt(*pair) for pair in zip(found.distances, true, strict=True)])),
        "Brier": brier,
        "ECE": bins.error,
        "calibration": [[p, share] if n else [None, None] for n, p, share in np.stack(bins, -1).tolist()],
        "chains": len(chains),
    }
    return Evaluation(
        [
            Score("long-range P@L/5", long["model"]["L/5"], name, long[name]["L/5"])
            for name in ("separation prior", "profile-pair log-odds")
        ],
        metrics,
        figures,
    )


def baselines(train: Sequence[Chain], chains: Sequence[Chain]) -> dict[str, list[np.ndarray]]:
    """Return the baselines' scores (L, L) of each chain."""
    prior = SeparationPrior(train)
    profiles, letters = ProfilePairs(train, prior), ProfilePairs([sequence_alone(chain) for chain in train], prior)
    found = {
        "profile-pair log-odds": [profiles(chain) for chain in chains],
        "amino-acid-pair log-odds": [letters(sequence_alone(chain)) for chain in chains],
        "separation prior": [prior(chain) for chain in chains],
    }
    if any(chain.alignment is not None for chain in chains):
        for name, score in (("covariance", features.covariance), ("inverse covariance", features.inverse_covariance)):
            found[name] = [
                np.zeros(2 * (len(c),)) if c.alignment is None else score(c.alignment) for c in chains
            ]  # without an alignment all pairs are alike
    return found


def precisions(scores: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> np.ndarray:
    """Return the precisions (chains, ranges, shares)."""
    return np.array(
        [
            [[precision(score, distance, share, span) for share in SHARES.values()] for span in RANGES]
            for score, distance in zip(scores, true, strict=True)
        ]
    )


def by_depth(depth: np.ndarray, table: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the long-range precision and the number of chains, by depth of alignment (chains,)."""
    if depth.max() <= 1:
        return {}
    groups = {name: (depth >= low) & (depth < high) for name, (low, high) in DEPTHS.items()}
    found: dict[str, float] = {f"chains, {name}": int(group.sum()) for name, group in groups.items()}
    for method, values in table.items():
        for name, group in groups.items():
            if group.any():
                found[f"{method} P@L/5, {name}"] = float(values[group, -1, 0].mean())
    return found


def ss_accuracy(chains: Sequence[Chain], states: Sequence[np.ndarray]) -> dict[str, float]:
    """Return Q8 and Q3: the accuracy over 8 states, and over helix, strand and coil; mean over chains."""
    known = [(c.ss8, s) for c, s in zip(chains, states, strict=False) if c.ss8 is not None]
    if not known:
        return {}
    return {
        "Q8": float(np.mean([(true == found).mean() for true, found in known])),
        "Q3": float(np.mean([(SS8_TO_SS3[true] == SS8_TO_SS3[found]).mean() for true, found in known])),
    }


def write_table(path: Path, chains: Sequence[Chain], depth: np.ndarray, table: dict[str, np.ndarray]) -> None:
    """Write a line for each chain: its properties, and the precisions (chains, ranges, shares) of each method."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        spans = ["short ", "medium ", ""]
        cuts = [f"{name} {span}P@{cut}" for name in table for span in spans for cut in SHARES]
        writer.writerow(["chain", "residues", "meff", "long_range_contacts", *cuts])
        for n, chain in enumerate(chains):
            contacts = (distances(chain)[np.triu_indices(len(chain), LONG_RANGE)] < CONTACT).sum()
            values = [f"{value:.4f}" for values in table.values() for value in values[n].ravel()]
            writer.writerow([chain.name, len(chain), f"{depth[n]:.1f}", contacts, *values])


class ModelOutputs(NamedTuple):
    """The predictions of a model for each chain."""

    contacts: list[np.ndarray]  # (L, L) each, P(contact)
    distances: list[np.ndarray]  # (L, L) each, the median, in Å
    ss8: list[np.ndarray]  # (L,) each, the most likely of SS8_STATES; or empty
    loss: float  # the mean over chains, in nats


@torch.inference_mode()
def run_model(adapter: Adapter, batches: Iterable[Batch]) -> ModelOutputs:
    adapter.eval()
    maps, medians, states, losses = [], [], [], []
    for batch in batches:
        batch = to_device(batch, adapter.device)
        prediction = adapter(batch)
        contact, lengths = adapter.contacts(prediction).cpu().numpy(), batch["seq_mask"].sum(1).tolist()
        median = median_distance(
            prediction.distance.float().softmax(-1).cpu().numpy(), adapter.bin_edges.float().cpu().numpy()
        )
        maps += [p[:length, :length] for p, length in zip(contact, lengths, strict=True)]
        medians += [d[:length, :length] for d, length in zip(median, lengths, strict=True)]
        losses += adapter.metrics(prediction, batch)["loss"].tolist()
        if prediction.ss8 is not None:
            states += [s[:length].argmax(-1).cpu().numpy() for s, length in zip(prediction.ss8, lengths, strict=True)]
    return ModelOutputs(maps, medians, states, float(np.mean(losses)))


def without_alignment(batch: Batch) -> Batch:
    """Return the batch without profiles and alignments."""
    num_amino_acids = batch["profile"].shape[-1]
    nothing = {key: torch.zeros_like(batch[key]) for key in ("site_features", "pair_features") if key in batch}
    return (
        batch | nothing | {"profile": F.one_hot(batch["sequence"], num_amino_acids + 1)[..., :num_amino_acids].float()}
    )
