"""Where images come from. Each source gives the same thing: labels, class names, splits, and pixels on demand.

Shapes: N images · B of them · C channels · Y rows · X columns, in pixels
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from domains.config import data_home
from domains.data_warnings import listed, warn_data, warn_left_out
from domains.files import walk_files
from domains.vision.config import DataConfig, Source
from domains.vision.dataset import Images, drawn_splits, stratified
from domains.vision.decode import covered, formats, opened, sorted_out
from domains.vision.image_folder import open_folder
from domains.vision.modes import standard

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
STREAMS = ("wds/", "tfds/", "hfids/")  # timm's names for what comes in an order of its own
FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


def open_images(config: DataConfig) -> Images:
    """The data set that a configuration names.

    Raises:
        ValueError: if it is not there, or cannot be read; it says what to do.
    """
    match config.source:
        case Source.digits:
            return _digits(config)
        case Source.folder:
            return open_folder(config)
        case Source.timm:
            return _timm(config)
        case Source.fashion_mnist if config.path is None and DEBIAN.is_dir():
            parts = [
                tuple(_idx(DEBIAN / f"{part}-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
                for part in ("train", "t10k")
            ]
            return _official(config, [(x[:, None], y) for x, y in parts], [*FASHION.split(",")])
        case _:
            return _torchvision(config)


def _digits(config: DataConfig) -> Images:
    """scikit-learn's digits: a stratified 25 % is the test split, and a tenth of the rest the validation split; always.

    Raises:
        ValueError: for a path or another size than theirs, which would not be heeded.
    """
    if config.path is not None:
        raise ValueError(f"data.path={config.path} is not read by data=digits; say data=images")
    if config.size not in (None, 8):
        raise ValueError(
            f"data.size={config.size} does not fit data=digits, whose images have 8×8 pixels; leave it out"
        )
    pixels, labels = load_digits(return_X_y=True)  # (N, 64) in 0 … 16, (N,)
    images = torch.from_numpy((pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8))
    labels = np.asarray(labels, dtype=np.int64)
    rest, test = stratified(np.arange(len(labels)), labels, 0.25, 0)
    train, val = stratified(rest, labels, 0.1, 0)
    splits = {"train": train, "val": val, "test": test}
    return Images(labels, [str(n) for n in range(10)], splits, (1, 8, 8), lambda indices: images[np.asarray(indices)])


def _timm(config: DataConfig) -> Images:
    """Whatever timm.data.create_dataset can read in any order: hfds/…, torch/…, or a folder with train and validation.

    Raises:
        ValueError: for a stream, or what timm cannot open, or would take for training and for test.
    """
    parts = _opened_by_timm(config)
    readers = [getattr(part, "reader", part) for part in parts.values()]  # torchvision's sets have none
    if hasattr(readers[0], "samples") and readers[0].samples == readers[1].samples:
        raise ValueError(f"data.path={config.path} has no folders train and validation; data=images draws the splits")
    names, others = (getattr(reader, "class_to_idx", {}) for reader in readers)
    if names != others:
        raise ValueError(f"the classes of {config.name!r} in training are {listed(names)}; in test, {listed(others)}")
    items = [(split, n) for split, part in parts.items() for n in range(len(part))]
    labels = np.concatenate([_labels(part) for part in parts.values()])
    said: set[str] = set()

    def picture(number: int) -> Image.Image:
        split, n = items[number]
        image, remarks = _picture(parts[split], n, f"image {n} of the {split} split of {config.name}")
        for remark in set(remarks) - said:
            warn_data(f"images of {config.name}: {remark} (first: image {n} of the {split} split)")
        said.update(remarks)
        return image

    first, side = picture(0), config.size
    shape = (3, side or first.height, side or first.width)

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([covered(picture(n), *shape[1:]) for n in indices])).float() / 255

    classes = sorted(names, key=lambda name: names[name]) or [str(n) for n in range(labels.max() + 1)]
    return Images(labels, classes, drawn_splits(config, labels, np.array([split for split, _ in items])), shape, read)


def _opened_by_timm(config: DataConfig) -> dict[str, Any]:
    """timm's data sets for "train" and "test"."""
    from timm.data import add_img_extensions, create_dataset  # pyright: ignore[reportPrivateImportUsage]

    if config.name is None:
        raise ValueError("data=timm needs data.name=…, the name of a data set of timm, such as hfds/cifar10")
    if config.name.lower().startswith(STREAMS):
        raise ValueError(
            f"data.name={config.name} is a stream, which gives no image by its number; possible: hfds/…, torch/…, or "
            "data.name=folder with data.path=FOLDER"
        )
    add_img_extensions([*formats()])  # timm itself reads .png, .jpg and .jpeg in folders, and passes over all others
    try:
        parts = {
            ours: create_dataset(config.name, root=config.path, split=theirs)
            for ours, theirs in (("train", "train"), ("test", "validation"))
        }
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        raise ValueError(f"timm cannot open {config.name!r} (data.path={config.path}): {error}") from error
    if "/" not in config.name and config.path and (root := Path(config.path)).is_dir():
        files = walk_files(root)
        warn_left_out(len(files), sorted_out(files, root)[1], root)
    return parts


def _picture(part: Any, n: int, name: str) -> tuple[Image.Image, list[str]]:
    """An image of one of timm's data sets, in RGB, and what was done to it.

    It is taken from timm's reader: its data set drops transparency, and gives the next image for one that is damaged.
    """
    source = part.reader[n][0] if hasattr(part, "reader") else part[n][0]
    if isinstance(source, Image.Image):
        return standard(source, 3)[:2]
    with opened(source, name) as image:
        return standard(image, 3)[:2]


def _labels(part: Any) -> np.ndarray:
    """Of one of timm's data sets; pictures are decoded for it only where it keeps labels nowhere else."""
    reader = getattr(part, "reader", part)
    if hasattr(reader, "targets"):
        labels = reader.targets
    elif hasattr(reader, "samples"):
        labels = [label for _, label in reader.samples]
    elif hasattr(reader, "iter_targets"):
        labels = list(reader.iter_targets())
    else:
        labels = [part[n][1] for n in range(len(part))]
    return np.asarray(labels, dtype=np.int64)


def _torchvision(config: DataConfig) -> Images:
    """Downloaded once, with the checksums that torchvision knows."""
    from torchvision import datasets

    kind = {
        Source.fashion_mnist: datasets.FashionMNIST,
        Source.mnist: datasets.MNIST,
        Source.cifar10: datasets.CIFAR10,
        Source.cifar100: datasets.CIFAR100,
    }[config.source]
    root = Path(config.path or data_home())
    try:
        parts = [kind(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        hint = "; or: apt-get install dataset-fashion-mnist" if config.source is Source.fashion_mnist else ""
        raise ValueError(
            f"{kind.__name__} is not in {root} and cannot be downloaded ({error}); put its files, as torchvision's "
            f"{kind.__name__} lays them out, there, or set data.path{hint}"
        ) from error
    pairs = []
    for part in parts:
        pixels = np.asarray(part.data)  # (N, Y, X) or (N, Y, X, C)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        pairs.append((pixels, np.asarray(part.targets)))
    return _official(config, pairs, list(parts[0].classes))


def _official(config: DataConfig, pairs: list[tuple[np.ndarray, np.ndarray]], classes: list[str]) -> Images:
    """Training and test images (N, C, Y, X), uint8, and labels, as the data set's makers split them."""
    pixels, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    where = np.repeat(["train", "test"], [len(y) for _, y in pairs])
    shape = pixels.shape[1:]
    if config.size and (config.size, config.size) != shape[1:]:
        raise ValueError(f"data.size={config.size} does not fit {config.source.value}, whose images have {shape[1:]}")

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        return torch.from_numpy(pixels[np.asarray(indices)]).float() / 255

    return Images(labels.astype(np.int64), classes, drawn_splits(config, labels, where), shape, read)


def _idx(file: Path) -> np.ndarray:
    """An array in the IDX format of MNIST (LeCun et al. 1998), gzipped: two zeros, type, dimensions, sizes, numbers."""
    with gzip.open(file) as stream:
        raw = stream.read()
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
