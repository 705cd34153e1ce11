"""Images in three splits, as batches."""

from collections.abc import Sequence

import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.vision.augment import augmented, mixed
from domains.vision.config import DataConfig
from domains.vision.sources import open_images

ENOUGH = 5000  # images that mean and deviation of the pixels are taken from


class Data(DomainData):
    """Whatever `data.source` names."""

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        self.images = open_images(self.config)

    def spec(self):
        """Class names, sizes, and mean and deviation of each channel over the training images."""
        images = self.images
        pixels = images.read(images.splits["train"][:ENOUGH]).double()
        return {
            "classes": images.classes,
            "channels": images.shape[0],
            "size": list(images.shape[1:]),
            "mean": pixels.mean((0, 2, 3)).tolist(),
            "std": pixels.std((0, 2, 3), correction=0).clamp(min=1e-3).tolist(),
        }

    def size(self, split):
        return len(self.images.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        chosen = self.images.splits[split][list(indices)]
        images, labels = self.images.read(chosen), torch.from_numpy(self.images.labels[chosen])
        batch = {"images": images, "labels": labels}  # (B, C, Y, X), (B,)
        if rngs is None:
            return batch
        draws, c = list(rngs), self.config
        batch["images"] = augmented(images, c.augment, draws)
        if c.mixup or c.cutmix:
            batch = mixed(batch, len(self.images.classes), c.mixup, c.cutmix, draws[0])
        return batch
