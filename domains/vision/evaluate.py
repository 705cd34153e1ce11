"""Accuracy on held-out images beside a support-vector machine's, per class, and what the model looked at."""

import csv
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from sklearn.svm import SVC
from torch import Tensor

from core.probe import Probe
from domains.adapter import Batch, Evaluation, Score, mean_measures, to_device
from domains.vision.adapter import Adapter
from domains.vision.data import Data
from domains.vision.figures import draw_confusion, draw_rollouts


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Writes confusion.csv, confusion.png and rollout.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    measures: dict = mean_measures(adapter, data.eval_dataloader(split))
    truth, guess = labels_and_guesses(adapter, data, split)
    confusion = confusion_matrix(truth, guess, labels=range(len(adapter.classes)))  # (true, predicted)
    seen, known = np.maximum(confusion.sum(1), 1), confusion.diagonal()
    measures["accuracy_by_class"] = {
        name: float(k / n) for name, k, n in zip(adapter.classes, known, seen, strict=True)
    }
    measures["images"] = len(truth)
    baseline = measures["svm_accuracy"] = svm_accuracy(data, split)

    with open(folder / "confusion.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["true \\ predicted", *adapter.classes])
        rows.writerows([name, *counts] for name, counts in zip(adapter.classes, confusion.tolist(), strict=True))
    draw_confusion(confusion, adapter.classes, folder / "confusion.png")
    shown = to_device(data.batch(split, first_of_each_class(truth, len(adapter.classes))), adapter.device)
    with torch.inference_mode():
        probe = Probe()
        guesses = adapter(shown, probe=probe).argmax(-1)
    maps = (
        rollout(probe.attention).mean(1).unflatten(-1, adapter.grid)
    )  # (B, h, w): averaged over queries, as the head does
    draw_rollouts(shown["images"], maps, shown["labels"], guesses, adapter.classes, folder / "rollout.png")
    scores = [Score("accuracy", measures["accuracy"], "support-vector machine", baseline)]
    return Evaluation(scores, measures, [folder / "rollout.png", folder / "confusion.png"])


@torch.inference_mode()
def labels_and_guesses(adapter: Adapter, data: Data, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted class of every image of a split."""
    truth, guess = [], []
    for batch in data.eval_dataloader(split):
        batch: Batch = to_device(batch, adapter.device)
        truth.append(batch["labels"].cpu())
        guess.append(adapter(batch).argmax(-1).cpu())
    return torch.cat(truth).numpy(), torch.cat(guess).numpy()


def first_of_each_class(labels: np.ndarray, classes: int) -> list[int]:
    """Indices of one image of every class that occurs."""
    return [int(np.flatnonzero(labels == c)[0]) for c in range(classes) if (labels == c).any()]


def svm_accuracy(data: Data, split: str) -> float:
    """A support-vector machine with a Gaussian kernel on the same pixels, trained on the same images."""
    (x, y), (held_x, held_y) = (_pixels(data, s) for s in ("train", split))
    return float(SVC(gamma="scale").fit(x, y).score(held_x, held_y))


def rollout(attention: list[Tensor]) -> Tensor:
    """How much each output token draws on each input token, through all blocks.

        R = Â_n … Â_2 Â_1,   Â = ½ mean over heads of A + ½ I

    Source: Abnar & Zuidema 2020, eq. 1; the ½ I stands for the residual stream.

    Args:
        attention: (B, H, L, L) of each block, first block first.
    Returns:
        (B, L, L), rows sum to 1.
    """
    eye = torch.eye(attention[0].shape[-1], device=attention[0].device)
    flow = eye
    for weights in attention:
        flow = (weights.mean(1) + eye) / 2 @ flow
    return flow


def _pixels(data: Data, split: str) -> tuple[np.ndarray, np.ndarray]:
    batch = data.batch(split, range(data.size(split)))
    return batch["images"].flatten(1).numpy(), batch["labels"].numpy()
