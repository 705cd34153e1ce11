"""The pictures of the vision domain."""

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor


def draw_rollouts(
    images: Tensor, maps: Tensor, labels: Tensor, guesses: Tensor, classes: list[str], path: Path
) -> None:
    """Each image (B, C, Y, X) above its attention map (B, h, w), the map laid over the image."""
    maps = F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    count = len(images)
    figure = Figure(figsize=(1.25 * count, 3.1), dpi=120, layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for i, (image, heat, true, guess) in enumerate(zip(images, maps, labels, guesses, strict=True)):
        picture = image.cpu().permute(1, 2, 0).squeeze(-1).numpy()  # (Y, X) or (Y, X, 3)
        for ax in axes[:, i]:
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()
        axes[1, i].imshow(heat.cpu(), cmap="inferno", alpha=0.65)
        right = true == guess
        axes[0, i].set_title(classes[int(guess)], color="black" if right else "crimson", fontsize=11)
    figure.suptitle("predicted class, and the attention rollout behind it (bright: drawn on most)", fontsize=11)
    figure.savefig(path)


def draw_confusion(counts: np.ndarray, classes: list[str], path: Path) -> None:
    """A table of true (rows) against predicted classes (columns), shaded by the share of the row."""
    side = 1.5 + 0.45 * len(classes)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    ax = figure.subplots()
    ax.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for true, row in enumerate(counts):
        for guess, n in enumerate(row):
            if n:
                ax.text(
                    guess,
                    true,
                    str(n),
                    ha="center",
                    va="center",
                    color="white" if true == guess else "black",
                    fontsize=9,
                )
    ax.set_xticks(range(len(classes)), classes)
    ax.set_yticks(range(len(classes)), classes)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    figure.savefig(path)
