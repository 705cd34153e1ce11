"""Images in three splits, as batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.sampling import Rngs
from domains.vision.augment import augment, mixup_cutmix
from domains.vision.config import DataConfig
from domains.vision.dataset import READ_BATCH_SIZE, check_varied
from domains.vision.sources import open_images

MAX_STATS_IMAGES = 5000  # images that mean and deviation of the pixels are taken from, at most


class Data(DomainData):
    """The images of `data.source`."""

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if not hasattr(self, "images"):
            images = open_images(self.config)
            check_varied(images)
            self.images = images

    def spec(self):
        """Class names, sizes, mean and standard deviation of each channel over the training images; ranges by mode, if
        some images have more than 8 bits.
        """
        images, sums, count = self.images, torch.zeros(2, self.images.shape[0], dtype=torch.float64), 0
        for part in self.evenly_spaced(MAX_STATS_IMAGES):
            pixels = images.read(images.splits["train"][part]).double()
            sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
            count += pixels[:, 0].numel()
        mean, square = sums / count
        ranges = {"ranges": {mode: list(ends) for mode, ends in images.ranges.items()}} if images.ranges else {}
        return {
            "classes": images.classes,
            "channels": images.shape[0],
            "size": list(images.shape[1:]),
            "mean": mean.tolist(),
            "std": (square - mean.square()).clamp(min=1e-6).sqrt().tolist(),
            **ranges,
        }

    def evenly_spaced(self, most: int) -> Iterator[list[int]]:
        """Yield the numbers of at most so many training images, evenly spaced, in batches that fit into memory."""
        size = self.size("train")
        chosen = np.linspace(0, size - 1, min(size, most)).astype(int)
        for part in np.array_split(chosen, -(-len(chosen) // READ_BATCH_SIZE)):
            yield part.tolist()

    def size(self, split):
        return len(self.images.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        chosen = self.images.splits[split][list(indices)]
        images, labels = self.images.read(chosen), torch.from_numpy(self.images.labels[chosen])
        batch = {"images": images, "labels": labels}  # (B, C, Y, X), (B,)
        if rngs is None:
            return batch
        draws, c = list(rngs), self.config
        batch["images"] = augment(images, c.augment, draws)
        if c.mixup or c.cutmix:
            batch = mixup_cutmix(batch, len(self.images.classes), c.mixup, c.cutmix, draws[0])
        return batch
