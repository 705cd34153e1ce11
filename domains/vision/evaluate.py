"""Accuracy on held-out images, beside a baseline without a network, and maps of the model's attention.

Shapes: B batch · N images of the split · P numbers of an image · K classes · M bins of confidence
"""

import csv
from math import log, prod
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unicodedata import normalize

import torch
from jaxtyping import Float, Int
from sklearn.svm import SVC
from torch import Tensor

from domains.adapter import Batch, Evaluation, Score
from domains.calibration import reliability
from domains.data_warnings import listed
from domains.vision.adapter import Adapter
from domains.vision.data import Data
from domains.vision.figures import draw_confusion, draw_maps, draw_reliability, shorten
from domains.vision.maps import attention_maps, has_attention

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
TIMING_SECONDS = 0.5  # seconds of forward passes, to time them
MAX_SHOWN = 10  # images whose maps are drawn
SVM_IMAGES, SVM_NUMBERS = 5_000, 4_096  # training images, and numbers of each, up to which an SVM takes seconds
MEAN_IMAGES = 20_000  # training images that the class means are taken from, at most


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test", *, flips: bool = False) -> Evaluation:
    """Measure accuracy, loss and calibration on a split, and the throughput; draw attention maps.

    The baseline is a support-vector machine on the pixels if the training images are few and small, and otherwise the
    class with the nearest mean image.

    Writes classes.csv, confusion.csv, confusion.png and reliability.png, and rollout.png if the mixer has attention:
    maps of one image of each of the first 10 classes.

    Args:
        flips: average predictions over each image and its mirror image, at twice the cost; for data and models where
            mirror images are as likely.
    Raises:
        ValueError: for an unknown or empty split.
    """
    check_classes(adapter, data)
    logs, labels = predict_split(adapter, data, split, flips)
    confidence, guess = logs.exp().max(-1)
    right = guess == labels
    K, classes = len(adapter.classes), adapter.classes
    confusion = torch.bincount(labels * K + guess, minlength=K * K).view(K, K)  # (true, predicted)
    bins = reliability(confidence.numpy(), right.numpy(), NUM_BINS)
    baseline_name, baseline_accuracy = baseline(data, split)
    metrics: dict[str, Any] = {
        name: value.double().mean().item() for name, value in adapter.metrics(logs, {"labels": labels}).items()
    }
    if K > 5:
        metrics["top5_accuracy"] = (logs.topk(5).indices == labels[:, None]).any(-1).double().mean().item()
    folder.mkdir(parents=True, exist_ok=True)
    metrics |= {
        "calibration_error": bins.error,
        "accuracy_by_class": write_classes(folder / "classes.csv", confusion, classes),
        "images": len(labels),
        "flips": flips,
        "baseline": {"name": baseline_name, "accuracy": baseline_accuracy},
        "throughput": throughput(adapter, data, split),
    }
    write_confusion(folder / "confusion.csv", confusion, classes)
    draw_confusion(confusion.numpy(), classes, folder / "confusion.png")
    draw_reliability(bins.counts, bins.confidence, bins.accuracy, bins.error, folder / "reliability.png")
    figures = [folder / "confusion.png", folder / "reliability.png"]
    if has_attention(adapter):
        shown = first_of_each_class(labels, K)[:MAX_SHOWN]
        draw_examples(adapter, data.batch(split, shown), guess[shown], folder / "rollout.png")
        figures.insert(0, folder / "rollout.png")
    score = Score("accuracy", metrics["accuracy"], baseline_name, baseline_accuracy)
    error = Score("error", 1 - score.value, baseline_name, 1 - baseline_accuracy, lower_is_better=True)
    return Evaluation([score], metrics, figures, error)


def check_classes(adapter: Adapter, data: Data) -> None:
    """Raise ValueError if the run's data have other classes now than in training."""
    known, found = [normalize("NFC", name) for name in adapter.classes], data.images.classes
    if known != found:
        gone, new = (listed(sorted(set(a) - set(b))) or "none" for a, b in ((known, found), (found, known)))
        raise ValueError(f"the run's data have other classes than it was trained on: {gone} gone, {new} new")


def draw_examples(adapter: Adapter, batch: Batch, guesses: Int[Tensor, " B"], path: Path) -> None:
    """Draw maps of a few images with the predicted class, and the true class of wrong ones."""
    images, names = batch["images"].to(adapter.device), [shorten(name) for name in adapter.classes]
    pairs = list(zip(guesses.tolist(), batch["labels"].tolist(), strict=True))
    titles = [names[guess] if guess == true else f"{names[guess]}\n(is {names[true]})" for guess, true in pairs]
    draw_maps(images, attention_maps(adapter, images), titles, [guess != true for guess, true in pairs], path)


@torch.inference_mode()
def predict_split(
    adapter: Adapter, data: Data, split: str, flips: bool = False
) -> tuple[Float[Tensor, "N K"], Int[Tensor, " N"]]:
    """Return log P(class) and the true class of every image of a split."""
    adapter.eval()
    logs, labels = [], []
    for batch in data.eval_dataloader(split):
        logs.append(log_probabilities(adapter, batch["images"].to(adapter.device), flips).cpu())
        labels.append(batch["labels"])
    return torch.cat(logs), torch.cat(labels)


def log_probabilities(adapter: Adapter, images: Float[Tensor, "B C Y X"], flips: bool = False) -> Float[Tensor, "B K"]:
    """Return log P(class); with flips, P is the mean over the image and its mirror image."""
    views = [images, images.flip(-1)] if flips else [images]
    each = torch.stack([adapter({"images": view}) for view in views])
    each = each.to(torch.promote_types(each.dtype, torch.float32)).log_softmax(-1)  # 16 bits are too few for an average
    return each.logsumexp(0) - log(len(views))


def throughput(adapter: Adapter, data: Data, split: str) -> dict[str, Any]:
    """Measure images per second of the forward pass alone, with images on the device: the median over half a second."""
    images = data.batch(split, range(min(data.config.batch_size, data.size(split))))["images"].to(adapter.device)
    seconds: list[float] = []
    with torch.inference_mode():
        adapter.eval()({"images": images}).cpu()  # to warm up
        while len(seconds) < 3 or sum(seconds) < TIMING_SECONDS:
            began = perf_counter()
            adapter({"images": images}).cpu()  # the host waits for the device
            seconds.append(perf_counter() - began)
    return {
        "images_per_second": len(images) / median(seconds),
        "batch_size": len(images),
        "device": str(adapter.device),
    }


def first_of_each_class(labels: Int[Tensor, " N"], classes: int) -> list[int]:
    """Return the index of one image of every class that occurs."""
    return [int((labels == c).nonzero()[0]) for c in range(classes) if (labels == c).any()]


def write_classes(path: Path, confusion: Int[Tensor, "K K"], classes: list[str]) -> dict[str, float]:
    """Write a line for each class: images, recall as accuracy, and precision.

    Returns:
        The accuracy of each class that has images.
    """
    known, true, guessed = (counts.tolist() for counts in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["class", "images", "accuracy", "precision"])
        for name, k, n, g in zip(classes, known, true, guessed, strict=True):
            rows.writerow([name, n, f"{k / n:.4f}" if n else "", f"{k / g:.4f}" if g else ""])
    return {name: k / n for name, k, n in zip(classes, known, true, strict=True) if n}


def write_confusion(path: Path, confusion: Int[Tensor, "K K"], classes: list[str]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["true \\ predicted", *classes])
        rows.writerows([name, *counts] for name, counts in zip(classes, confusion.tolist(), strict=True))


def baseline(data: Data, split: str) -> tuple[str, float]:
    """Return the name of the baseline, and its accuracy."""
    if data.size("train") <= SVM_IMAGES and prod(data.images.shape) <= SVM_NUMBERS:
        return "support-vector machine", svm_accuracy(data, split)
    return "nearest class mean", nearest_mean_accuracy(data, split)


def svm_accuracy(data: Data, split: str) -> float:
    """Return the accuracy of a Gaussian-kernel support-vector machine on the same pixels and training images."""
    parts = (data.batch(s, range(data.size(s))) for s in ("train", split))
    (x, y), (held_x, held_y) = ((part["images"].flatten(1).numpy(), part["labels"].numpy()) for part in parts)
    return float(SVC(gamma="scale").fit(x, y).score(held_x, held_y))


def nearest_mean_accuracy(data: Data, split: str) -> float:
    """Return the accuracy of the nearest mean training image: argmin ‖x - μ‖² = argmax x·μ - ‖μ‖² / 2.

    Means are of at most 20,000 training images, evenly spaced.
    """
    K = len(data.images.classes)
    sums, counts = torch.zeros(K, prod(data.images.shape)), torch.zeros(K, 1)
    for part in data.evenly_spaced(MEAN_IMAGES):
        batch = data.batch("train", part)
        sums.index_add_(0, batch["labels"], batch["images"].flatten(1))
        counts.index_add_(0, batch["labels"], torch.ones(len(batch["labels"]), 1))
    means = sums / counts.clamp(min=1)  # (K, P)
    offset = torch.where(counts[:, 0] > 0, means.square().sum(1) / 2, torch.inf)  # (K,); no image, no guess
    right = [
        (batch["images"].flatten(1) @ means.T - offset).argmax(-1) == batch["labels"]
        for batch in data.eval_dataloader(split)
    ]
    return torch.cat(right).double().mean().item()
