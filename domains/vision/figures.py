"""The figures of the vision domain.

Shapes: B batch · C channels · Y, X pixels · h, w patches along a side · K classes · M bins
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from matplotlib import rcParams
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

rcParams["text.parse_math"] = False  # names of classes and files are names, also with $ in them
MAX_NUMBERED_CLASSES = 20  # classes; a confusion matrix of more shows shades alone
MAX_TICKS = 25  # names along its sides
MAX_TITLE = 14  # letters above an image


def draw_maps(
    images: Float[Tensor, "B C Y X"],
    maps: dict[str, Float[Tensor, "B h w"]],
    titles: Sequence[str],
    wrong: Sequence[bool],
    path: Path,
) -> None:
    """Draw a column for each image: the image, and each of its maps as an overlay, from its minimum to its maximum.

    Titles of images with a wrong prediction are red. They may have several lines.
    """
    rows, columns = 1 + len(maps), len(images)
    lines = 1 + max(title.count("\n") for title in titles)
    Y, X = images.shape[-2:]
    width, height = 1.15 * columns + 0.9, 1.15 * Y / X * rows + 0.17 * lines + 0.6
    figure = Figure(figsize=(max(width, 6.0), height), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    for ax, name in zip(axes[:, 0], ["image", *maps], strict=True):
        ax.set_ylabel(name, fontsize=10)
    for column, (image, title, red) in enumerate(zip(images.cpu(), titles, wrong, strict=True)):
        picture = image.float().permute(1, 2, 0).squeeze(-1).numpy()  # (Y, X) or (Y, X, 3)
        axes[0, column].set_title(title, color="crimson" if red else "black", fontsize=9)
        for ax in axes[:, column]:
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    for name, row in zip(maps, axes[1:], strict=True):
        fine = F.interpolate(maps[name][:, None], size=(Y, X), mode="bilinear", align_corners=False)[:, 0].cpu()
        for ax, heat in zip(row, fine, strict=True):
            ax.imshow(heat.float().numpy(), cmap="inferno", alpha=0.65)
    figure.suptitle("predicted class, and what it draws on (bright: most)", fontsize=11)
    figure.savefig(path)


def shorten(text: str) -> str:
    """Return a text that fits above an image: the start and the end, for file names often differ at the end."""
    return text if len(text) <= MAX_TITLE else f"{text[: MAX_TITLE // 2 - 1]}…{text[-MAX_TITLE // 2 :]}"


def draw_confusion(counts: Int[np.ndarray, "K K"], classes: Sequence[str], path: Path) -> None:
    """Draw a table of true (rows) against predicted classes (columns), shaded by the root of the share of the row, so
    that rare mistakes show.

    Of more than 20 classes, only shades and some of the names.
    """
    K = len(classes)
    numbers = K <= MAX_NUMBERED_CLASSES
    side = 2.2 + 0.45 * K if numbers else 9.0
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    ax = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shades = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    for true, guess in zip(*np.nonzero(counts), strict=True) if numbers else ():
        color = "white" if share[true, guess] > 0.3 else "black"
        ax.text(guess, true, str(counts[true, guess]), ha="center", va="center", color=color, fontsize=8)
    shown = range(0, K, -(-K // MAX_TICKS))
    names = [shorten(classes[n]) for n in shown]
    ax.set_xticks(shown, names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(shown, names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if not numbers:
        figure.colorbar(shades, shrink=0.6, label="share of the true class")
    figure.savefig(path)


def draw_reliability(
    images: Num[np.ndarray, " M"],
    confidence: Float[np.ndarray, " M"],
    accuracy: Float[np.ndarray, " M"],
    error: float,
    path: Path,
) -> None:
    """Draw accuracy against confidence, above the number of images at each confidence (Guo et al. 2017, figure 1).

    Args:
        images, confidence, accuracy: of bins of equal width; an empty bin is left out.
        error: the expected calibration error.
    """
    width, used = 1 / len(images), images > 0
    middle = width * (np.arange(len(images)) + 0.5)
    figure = Figure(figsize=(4.6, 5.6), dpi=120, layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bars = top.bar(middle[used], accuracy[used], 0.94 * width, color="tab:blue", label="accuracy of a bin")
    (dots,) = top.plot(confidence[used], accuracy[used], "k.", label="the same, at its mean confidence")
    (line,) = top.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="calibrated")
    top.set_xlim(0, 1)
    top.set_ylim(0, 1.03)
    top.set_ylabel("accuracy")
    top.set_title(f"expected calibration error {error:.3f}", fontsize=11)
    figure.legend(handles=[bars, dots, line], loc="outside lower center", fontsize=8)
    below.bar(middle, images, 0.94 * width, color="gray")
    below.set_ylabel("images")
    below.set_xlabel("confidence: P(predicted class)")
    figure.savefig(path)
