"""How well hidden residues are guessed, beside how often each occurs."""

from collections import Counter
from pathlib import Path

import numpy as np

from domains.adapter import Evaluation, Score, mean_metrics
from domains.protein.language import ALPHABET, IGNORED
from domains.protein.masked.adapter import Adapter
from domains.protein.masked.data import Data


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Perplexity, exp of the mean surprise, and share of residues that are guessed; both beside the frequencies of
    residues in the training sequences, on the same residues, all behind <mask>.

    Raises:
        ValueError: for an unknown split.
    """
    batches = list(data.eval_dataloader(split))
    found = mean_metrics(adapter, batches)
    count = Counter("".join(data.splits["train"]))
    rate = np.array([count[letter] + 1 for letter in ALPHABET])
    surprise = -np.log(rate / rate.sum())
    targets = np.concatenate([batch["targets"][batch["targets"] != IGNORED].numpy() for batch in batches])
    metrics = {
        "perplexity": float(np.exp(found["loss"])),
        "unigram perplexity": float(np.exp(surprise[targets].mean())),
        "recovery": found["recovery"],
        "commonest residue": float((targets == rate.argmax()).mean()),
        "loss": found["loss"],
        "residues asked for": len(targets),
        "sequences": data.size(split),
    }
    return Evaluation(
        [
            Score("perplexity", metrics["perplexity"], "unigram", metrics["unigram perplexity"], lower_is_better=True),
            Score("recovery", metrics["recovery"], "commonest residue", metrics["commonest residue"]),
        ],
        metrics,
    )
