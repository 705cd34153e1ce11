"""The loss on masked patches, beside the mean image, and a picture of reconstructions."""

from pathlib import Path

import torch
from torch import Tensor

from domains.adapter import Evaluation, Score, mean_metrics, to_device
from domains.vision.masked.adapter import Adapter
from domains.vision.masked.data import Data
from domains.vision.masked.figures import draw_reconstructions

MAX_SHOWN = 8  # images


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Measure the loss, and write reconstructions.png into `folder`. The baseline predicts the mean training image."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics: dict = mean_metrics(adapter, data.eval_dataloader(split))
    baseline = metrics["mean_image_loss"] = mean_image_loss(adapter, data, split)
    metrics["images"] = data.size(split)
    draw_examples(adapter, data, split, folder / "reconstructions.png")
    scores = [Score("loss on masked patches", metrics["loss"], "mean of the training images", baseline, True)]
    return Evaluation(scores, metrics, [folder / "reconstructions.png"])


def draw_examples(adapter: Adapter, data: Data, split: str, path: Path) -> None:
    """Draw the first images of a split, each with its visible part and its reconstruction."""
    shown = to_device(data.batch(split, range(min(MAX_SHOWN, data.size(split)))), adapter.device)
    draw_reconstructions(shown["images"], *adapter.reconstruct(shown), path)


@torch.inference_mode()
def mean_image_loss(adapter: Adapter, data: Data, split: str) -> float:
    """Return the loss of predicting the mean of the training images: the best constant prediction."""
    total, count = torch.zeros(()), 0
    for batch in data.eval_dataloader("train"):
        targets = adapter.targets(to_device(batch, adapter.device)["images"])  # (B, L, P)
        total, count = total + targets.sum(0).cpu(), count + len(targets)
    guess: Tensor = (total / count).to(adapter.device)
    losses = [adapter.metrics(guess, to_device(batch, adapter.device))["loss"] for batch in data.eval_dataloader(split)]
    return torch.cat(losses).mean().item()
