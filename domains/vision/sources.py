"""Sources of images: each returns labels, class names, splits, and pixels on demand.

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
from domains.vision.dataset import ImageDataset, make_splits, stratified_split
from domains.vision.decode import open_image, resize_center_crop, separate_images, supported_formats
from domains.vision.image_folder import open_folder
from domains.vision.image_modes import convert_to_8_bit

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
STREAM_PREFIXES = ("wds/", "tfds/", "hfids/")  # timm's data sets without random access
FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


def open_images(config: DataConfig) -> ImageDataset:
    """Return the data set that a configuration names.

    Raises:
        ValueError: if it does not exist, or cannot be read; it says what to do.
    """
    match config.source:
        case Source.digits:
            return _digits(config)
        case Source.folder:
            return open_folder(config)
        case Source.timm:
            return _timm(config)
        case Source.fashion_mnist if config.path is None and DEBIAN_FASHION_MNIST.is_dir():
            parts = [
                tuple(
                    _read_idx(DEBIAN_FASHION_MNIST / f"{part}-{kind}.gz")
                    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
                )
                for part in ("train", "t10k")
            ]
            return _from_official_splits(config, [(x[:, None], y) for x, y in parts], [*FASHION_CLASSES.split(",")])
        case _:
            return _torchvision(config)


def _digits(config: DataConfig) -> ImageDataset:
    """Return scikit-learn's digits: a stratified 25 % is the test split, and a tenth of the rest the validation split;
    always.

    Raises:
        ValueError: for a path or another size, which would be ignored.
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
    rest, test = stratified_split(np.arange(len(labels)), labels, 0.25, 0)
    train, val = stratified_split(rest, labels, 0.1, 0)
    splits = {"train": train, "val": val, "test": test}
    return ImageDataset(
        labels, [str(n) for n in range(10)], splits, (1, 8, 8), lambda indices: images[np.asarray(indices)]
    )


def _timm(config: DataConfig) -> ImageDataset:
    """Return a data set of timm.data.create_dataset with random access: hfds/…, torch/…, or a folder with train and
    validation.

    Raises:
        ValueError: for a stream, a data set that timm cannot open, or one without separate training and test images.
    """
    parts = _open_timm_splits(config)
    readers = [getattr(part, "reader", part) for part in parts.values()]  # torchvision's sets have none
    if hasattr(readers[0], "samples") and readers[0].samples == readers[1].samples:
        raise ValueError(f"data.path={config.path} has no folders train and validation; data=images draws the splits")
    names, others = (getattr(reader, "class_to_idx", {}) for reader in readers)
    if names != others:
        raise ValueError(f"the classes of {config.name!r} in training are {listed(names)}; in test, {listed(others)}")
    items = [(split, n) for split, part in parts.items() for n in range(len(part))]
    labels = np.concatenate([_timm_labels(part) for part in parts.values()])
    warned: set[str] = set()

    def picture(number: int) -> Image.Image:
        split, n = items[number]
        image, remarks = _read_timm_image(parts[split], n, f"image {n} of the {split} split of {config.name}")
        for remark in set(remarks) - warned:
            warn_data(f"images of {config.name}: {remark} (first: image {n} of the {split} split)")
        warned.update(remarks)
        return image

    first, side = picture(0), config.size
    shape = (3, side or first.height, side or first.width)

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([resize_center_crop(picture(n), *shape[1:]) for n in indices])).float() / 255

    classes = sorted(names, key=lambda name: names[name]) or [str(n) for n in range(labels.max() + 1)]
    return ImageDataset(
        labels, classes, make_splits(config, labels, np.array([split for split, _ in items])), shape, read
    )


def _open_timm_splits(config: DataConfig) -> dict[str, Any]:
    """Return timm's data sets for "train" and "test"."""
    from timm.data import add_img_extensions, create_dataset  # pyright: ignore[reportPrivateImportUsage]

    if config.name is None:
        raise ValueError("data=timm needs data.name=…, the name of a data set of timm, such as hfds/cifar10")
    if config.name.lower().startswith(STREAM_PREFIXES):
        raise ValueError(
            f"data.name={config.name} is a stream, which gives no image by its number; possible: hfds/…, torch/…, or "
            "data.name=folder with data.path=FOLDER"
        )
    add_img_extensions([*supported_formats()])  # timm itself reads only .png, .jpg and .jpeg in folders
    try:
        parts = {
            ours: create_dataset(config.name, root=config.path, split=theirs)
            for ours, theirs in (("train", "train"), ("test", "validation"))
        }
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        raise ValueError(f"timm cannot open {config.name!r} (data.path={config.path}): {error}") from error
    if "/" not in config.name and config.path and (root := Path(config.path)).is_dir():
        files = walk_files(root)
        warn_left_out(len(files), separate_images(files, root)[1], root)
    return parts


def _read_timm_image(part: Any, n: int, name: str) -> tuple[Image.Image, list[str]]:
    """Return an image of one of timm's data sets, in RGB, and remarks.

    It is read by timm's reader: its data set drops transparency, and replaces a damaged image by the next one.
    """
    source = part.reader[n][0] if hasattr(part, "reader") else part[n][0]
    if isinstance(source, Image.Image):
        return convert_to_8_bit(source, 3)[:2]
    with open_image(source, name) as image:
        return convert_to_8_bit(image, 3)[:2]


def _timm_labels(part: Any) -> np.ndarray:
    """Return the labels of one of timm's data sets; images are decoded for it only if there is no list of labels."""
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


def _torchvision(config: DataConfig) -> ImageDataset:
    """Return a data set of torchvision, downloaded once, with torchvision's checksums."""
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
    return _from_official_splits(config, pairs, list(parts[0].classes))


def _from_official_splits(
    config: DataConfig, pairs: list[tuple[np.ndarray, np.ndarray]], classes: list[str]
) -> ImageDataset:
    """Return training and test images (N, C, Y, X), uint8, and labels, in the data set's own splits."""
    pixels, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    where = np.repeat(["train", "test"], [len(y) for _, y in pairs])
    shape = pixels.shape[1:]
    if config.size and (config.size, config.size) != shape[1:]:
        raise ValueError(f"data.size={config.size} does not fit {config.source.value}, whose images have {shape[1:]}")

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        return torch.from_numpy(pixels[np.asarray(indices)]).float() / 255

    return ImageDataset(labels.astype(np.int64), classes, make_splits(config, labels, where), shape, read)


def _read_idx(file: Path) -> np.ndarray:
    """Read an array in the IDX format of MNIST (LeCun et al. 1998), gzipped: two zeros, type, dimensions, sizes,
    numbers."""
    with gzip.open(file) as stream:
        raw = stream.read()
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
