"""The data set of every source of images: labels, class names, splits, and pixels on demand.

Shapes: N images · B of them · C channels · Y rows · X columns, in pixels
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.model_selection import train_test_split
from torch import Tensor

from domains.data import SPLITS
from domains.vision.config import DataConfig
from domains.vision.image_modes import ValueRange

READ_BATCH_SIZE = 256  # images read at once
SAME_TOLERANCE = 2.5 / 255  # images whose pixels differ by no more are the same


@dataclass
class ImageDataset:
    """A data set of images.

    Attributes:
        labels: (N,), int64.
        classes: the name of each label.
        splits: "train", "val" and "test" -> indices.
        shape: (C, Y, X) of every image.
        read: indices -> (B, C, Y, X), float32 in [0, 1].
        ranges: the range that became 0 … 1 in images of more than 8 bits, by mode.
    """

    labels: np.ndarray
    classes: list[str]
    splits: dict[str, np.ndarray]
    shape: tuple[int, int, int]
    read: Callable[[Sequence[int] | np.ndarray], Tensor]
    ranges: Mapping[str, ValueRange] = field(default_factory=dict)


def make_splits(config: DataConfig, labels: np.ndarray, split_names: np.ndarray) -> dict[str, np.ndarray]:
    """Return the indices of each split, drawn by class if the data have none.

    Args:
        split_names: (N,), the split of each image, or another word.
    Raises:
        ValueError: if there are too few images to draw from.
    """
    given = {split: np.flatnonzero(split_names == split) for split in SPLITS}
    rest = given["train"] if len(given["train"]) else np.arange(len(labels))
    if not len(given["test"]):
        rest, given["test"] = stratified_split(rest, labels, config.test_share, config.split_seed)
    if not len(given["val"]):
        rest, given["val"] = stratified_split(rest, labels, config.val_share, config.split_seed)
    return given | {"train": rest}


def stratified_split(indices: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        kept, drawn = train_test_split(indices, test_size=share, stratify=labels[indices], random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"{len(indices)} images of {len(set(labels[indices]))} classes cannot be split by data.test_share and "
            f"data.val_share, with each class on both sides ({error}); add images, or raise the shares"
        ) from error
    return np.asarray(kept), np.asarray(drawn)


def check_varied(images: ImageDataset) -> None:
    """Raise ValueError if all images of a split look the same, although they are of several classes.

    It stops reading at the first difference.
    """
    for split, indices in images.splits.items():
        if len(set(images.labels[indices].tolist())) < 2:
            continue
        first = images.read(indices[:1])
        if all((images.read(part) - first).abs().max() <= SAME_TOLERANCE for part in _parts(indices[::-1].copy())):
            raise ValueError(
                f"all {len(indices)} images of the {split} split are read as the same picture, with pixels from "
                f"{255 * first.min():.0f} to {255 * first.max():.0f} of 255, though they are of several classes; look "
                "at the files: what tells them apart is lost"
            )


def _parts(indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yield one index, then the others in batches that fit into memory."""
    yield indices[:1]
    for start in range(1, len(indices), READ_BATCH_SIZE):
        yield indices[start : start + READ_BATCH_SIZE]
