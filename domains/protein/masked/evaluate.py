"""Evaluation of masked residues, beside their frequencies."""

from collections import Counter
from pathlib import Path

import numpy as np

from domains.adapter import Evaluation, Score, mean_metrics
from domains.protein.language import ALPHABET, IGNORE_INDEX
from domains.protein.masked.adapter import Adapter
from domains.protein.masked.data import Data


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Return perplexity and accuracy on masked residues, beside those of the residue frequencies in training.

    Raises:
        ValueError: for an unknown split.
    """
    batches = list(data.eval_dataloader(split))
    found = mean_metrics(adapter, batches)
    count = Counter("".join(data.splits["train"]))
    rate = np.array([count[letter] + 1 for letter in ALPHABET])
    unigram_nll = -np.log(rate / rate.sum())
    targets = np.concatenate([batch["targets"][batch["targets"] != IGNORE_INDEX].numpy() for batch in batches])
    metrics = {
        "perplexity": float(np.exp(found["loss"])),
        "unigram perplexity": float(np.exp(unigram_nll[targets].mean())),
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
