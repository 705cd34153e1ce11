"""Images in three splits.

Shapes: B batch · C channels · Y rows · X columns, in pixels
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.vision.config import DataConfig


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
        images = self.images[chosen]  # (B, C, Y, X)
        if rngs is not None and self.config.shift:
            images = np.stack([shifted(image, rng, self.config.shift) for image, rng in zip(images, rngs, strict=True)])
        return {"images": torch.from_numpy(images), "labels": torch.from_numpy(self.labels[chosen])}


def shifted(image: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """Every other image (C, Y, X) moved by up to `most` pixels down or up and right or left, the border repeated."""
    y, x = rng.integers(0, 2 * most + 1, 2) if rng.random() < 0.5 else (most, most)
    padded = np.pad(image, ((0, 0), (most, most), (most, most)), mode="edge")
    return padded[:, y : y + image.shape[1], x : x + image.shape[2]]
