"""Images in three splits.

Shapes: B batch · C channels · Y rows · X columns, in pixels
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.vision.config import DataConfig

TURN = 10  # degrees
SCALE = 0.1  # log of the factor
MOVE = 1  # pixel


class Data(DomainData):
    """scikit-learn's digits: a stratified 25 % is the test split, and a tenth of the rest the validation split.

    The test split is the same for every seed, so that seeds can be compared.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        pixels, labels = load_digits(return_X_y=True)  # (N, 64) in 0 … 16, (N,)
        self.images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        self.labels = labels = labels.astype(np.int64)
        rest, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
        train, val = train_test_split(rest, test_size=0.1, stratify=labels[rest], random_state=0)
        self.splits = {"train": np.asarray(train), "val": np.asarray(val), "test": np.asarray(test)}
        self.classes = [str(name) for name in range(10)]

    def spec(self):
        pixels = self.images[self.splits["train"]]
        return {
            "classes": self.classes,
            "channels": self.images.shape[1],
            "size": list(self.images.shape[2:]),
            "mean": [float(v) for v in pixels.mean((0, 2, 3))],
            "std": [float(v) for v in pixels.std((0, 2, 3))],
        }

    def size(self, split):
        return len(self.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        chosen = self.splits[split][np.asarray(indices)]
        images = torch.from_numpy(self.images[chosen])  # (B, C, Y, X)
        if rngs is not None and self.config.augment:
            images = distorted(images, rngs)
        return {"images": images, "labels": torch.from_numpy(self.labels[chosen])}


def distorted(images: Tensor, rngs: Rngs) -> Tensor:
    """Every other image (B, C, Y, X), by chance, turned, scaled and moved a little; the border is repeated."""
    B, _, Y, X = images.shape
    strength = np.zeros((B, 4), np.float32)
    for row, rng in zip(strength, rngs, strict=True):
        if rng.random() < 0.5:
            row[:] = rng.uniform(-1, 1, 4)
    turn, size = np.deg2rad(TURN) * strength[:, 0], np.exp(SCALE * strength[:, 1])
    across, down = 2 * MOVE * strength[:, 2] / X, 2 * MOVE * strength[:, 3] / Y  # an image is 2 wide here
    cos, sin = np.cos(turn) / size, np.sin(turn) / size
    where = torch.from_numpy(np.stack([cos, -sin, across, sin, cos, down], -1).reshape(B, 2, 3).astype(np.float32))
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
