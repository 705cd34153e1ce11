"""How well contacts are predicted, beside what needs no network."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from domains.adapter import Batch, Evaluation, Score, to_device
from domains.protein.adapter import Adapter
from domains.protein.data import Chain, Data
from domains.protein.figures import Panel, contact_maps, precision_bars
from domains.protein.metrics import CONTACT, LONG_RANGE, ProfilePairs, SeparationPrior, distances, precision

SHARES = {"L/5": 5, "L/2": 2, "L": 1}
PANELS = 6


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Long-range precision of the model and of two predictors that are fitted to the same training chains.

    Writes precision.csv (a line for each chain), contacts.png (chains from the best predicted to the worst, at even
    distances in rank, so that none is picked) and precision.png.

    Raises:
        ValueError: for an unknown split.
    """
    batches = list(data.eval_dataloader(split))
    chains, folder = data.splits[split], Path(folder)
    prior = SeparationPrior(data.splits["train"])
    pairs = ProfilePairs(data.splits["train"], prior)
    maps, loss = apply(adapter, batches)
    maps_alone, loss_alone = apply(adapter, map(sequence_alone, batches))
    scores = {
        "model": maps,
        "model, sequence alone": maps_alone,
        "profile-pair log-odds": [pairs(chain) for chain in chains],
        "separation prior": [prior(chain) for chain in chains],
    }
    true = [distances(chain) for chain in chains]
    table = {name: np.array([precisions(*pair) for pair in zip(s, true, strict=True)]) for name, s in scores.items()}
    mean = {name: dict(zip(SHARES, values.mean(0).tolist(), strict=True)) for name, values in table.items()}

    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "precision.csv", chains, table)
    ranks = np.argsort(-table["model"][:, 0], kind="stable")
    shown = ranks[np.linspace(0, len(ranks) - 1, min(PANELS, len(ranks))).round().astype(int)]
    titles = [f"{chain.name}   P@L/5 {values[0]:.2f}" for chain, values in zip(chains, table["model"], strict=True)]
    figures = [
        contact_maps(folder / "contacts.png", [Panel(titles[n], maps[n], true[n] < CONTACT) for n in shown]),
        precision_bars(
            folder / "precision.png", {name: [*values.values()] for name, values in mean.items()}, [*SHARES]
        ),
    ]
    measures = {f"{name} P@{cut}": value for name, values in mean.items() for cut, value in values.items()}
    return Evaluation(
        [
            Score("long-range P@L/5", mean["model"]["L/5"], name, mean[name]["L/5"])
            for name in ("separation prior", "profile-pair log-odds")
        ],
        measures | {"loss": loss, "loss, sequence alone": loss_alone, "chains": len(chains)},
        figures,
    )


def precisions(score: np.ndarray, distance: np.ndarray) -> list[float]:
    return [precision(score, distance, share) for share in SHARES.values()]


def write_table(path: Path, chains: Sequence[Chain], table: dict[str, np.ndarray]) -> None:
    """A line for each chain: what it is, and the precisions (chains, shares) of each method."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        cuts = [f"{name} P@{cut}" for name in table for cut in SHARES]
        writer.writerow(["chain", "residues", "long_range_contacts", *cuts])
        for n, chain in enumerate(chains):
            contacts = (distances(chain)[np.triu_indices(len(chain), LONG_RANGE)] < CONTACT).sum()
            values = [f"{value:.4f}" for values in table.values() for value in values[n]]
            writer.writerow([chain.name, len(chain), contacts, *values])


@torch.inference_mode()
def apply(adapter: Adapter, batches: Iterable[Batch]) -> tuple[list[np.ndarray], float]:
    """P(contact) of each chain, (L, L), and the mean of their losses."""
    adapter.eval()
    maps, losses = [], []
    for batch in batches:
        batch = to_device(batch, adapter.device)
        logits = adapter(batch)
        contact, lengths = adapter.contacts(logits).cpu().numpy(), batch["valid"].sum(1).tolist()
        maps += [p[:length, :length] for p, length in zip(contact, lengths, strict=True)]
        losses += adapter.measure(logits, batch)["loss"].tolist()
    return maps, float(np.mean(losses))


def sequence_alone(batch: Batch) -> Batch:
    """The batch as it would be without profiles."""
    kinds = batch["profile"].shape[-1]
    return batch | {"profile": F.one_hot(batch["sequence"], kinds + 1)[..., :kinds].float()}
