"""A folder with a sub-folder of images for each class, as in torchvision's ImageFolder, or folders of splits above.

Shapes: C channels · Y rows · X columns, in pixels
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from domains.data import SPLITS
from domains.data_warnings import listed, warn_data, warn_left_out
from domains.files import walk_files
from domains.vision.config import DataConfig, OnError
from domains.vision.dataset import ImageDataset, make_splits
from domains.vision.decode import (
    DecodedImage,
    decode_image,
    no_images_message,
    open_image,
    read_image,
    separate_images,
    warn_remarks,
)
from domains.vision.image_modes import GREY_MODES, ValueRange, value_range

MAX_BYTES_IN_MEMORY = 2**30  # bytes of decoded pixels that are kept
SPLIT_NAMES = {  # of split folders
    "train": "train|training|trn",
    "val": "val|valid|validation|validate|dev|development|eval|evaluation",
    "test": "test|testing|tst|holdout",
}


class FolderImage(NamedTuple):
    file: Path
    name: str  # of its class
    split: str  # "all" where no folders are splits


def open_folder(config: DataConfig) -> ImageDataset:
    """Return the data set below `data.path`.

    Raises:
        ValueError: if there is none, or it is ambiguous.
    """
    root = Path(config.path or "")
    if config.path is None or not root.is_dir():
        wrong = "data.path is needed" if config.path is None else f"data.path={config.path} is no folder"
        raise ValueError(f"{wrong}; give a folder with a sub-folder of images for each class")
    splits = find_split_folders(root)
    found = find_images(root, splits)
    class_names(root, found)  # says what is wrong before all files are read
    files = [one.file for one in found]
    shape = _common_shape(files, config)
    good, pixels, ranges = _decode_all(root, files, shape, config.on_error)
    found, files = [found[n] for n in good], [files[n] for n in good]
    classes = class_names(root, found)
    _warn_classes(root, splits, found, classes)
    labels, where = np.array([classes.index(one.name) for one in found]), np.array([one.split for one in found])

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        if pixels is not None:
            return torch.from_numpy(pixels[np.asarray(indices)]).float() / 255
        return torch.from_numpy(np.stack([read_image(files[n], shape, ranges) for n in indices])).float() / 255

    return ImageDataset(labels, classes, make_splits(config, labels, where), shape, read, ranges)


def split_from_name(name: str) -> str | None:
    """Return the split that a folder name means, in any case: train, Training, TEST, val_set …"""
    plain = normalize("NFC", name).strip().casefold()
    names = (
        split for split, known in SPLIT_NAMES.items() if re.fullmatch(f"({known})[ _-]?(set|split|data|images)?", plain)
    )
    return next(names, None)


def find_split_folders(root: Path) -> dict[str, str]:
    """Return names of sub-folders -> their splits; empty if the sub-folders are classes.

    A single folder named like a split that holds images itself, beside others, is a class: trains, beside cars.

    Raises:
        ValueError: for two folders of one split, and for splits without one to train on.
    """
    folders = _folders(root)
    named = {folder.name: split for folder in folders if (split := split_from_name(folder.name))}
    for split in SPLITS:
        if len(twice := [name for name in named if named[name] == split]) > 1:
            raise ValueError(f"{root} has several folders of the {split} split, {listed(twice)}; keep one of them")
    alone = next(iter(named), "")
    if len(named) == 1 and len(folders) > 1 and not _folders(root / alone):
        warn_data(f"the folder {alone} in {root} holds images itself, and is taken for a class, not for a split")
        return {}
    if named and "train" not in named.values():
        raise ValueError(
            f"{root} has {listed([*named])}, named like splits, but no folder train; put the classes to train on there"
        )
    return named


def find_images(root: Path, splits: dict[str, str]) -> list[FolderImage]:
    """Return all images in class folders, training images first, sorted by path; warn of other files.

    Raises:
        ValueError: if there are none in the folder or a split, for images outside of class folders, and for splits
            below the classes.
    """
    every = walk_files(root)
    files, left = separate_images(every, root)
    found, below = [], {}
    for file in files:
        top, *inside = file.relative_to(root).parts
        if splits and top not in splits:
            left.setdefault("beside the folders of splits", []).append(file.relative_to(root))
            continue
        inside = inside if splits else [top, *inside]
        if len(inside) < 2:
            raise ValueError(f"{file} lies in no sub-folder; each class needs a sub-folder of its own, named after it")
        found.append(FolderImage(file, _class_name(inside[0]), splits.get(top, "all")))
        if len(inside) > 2 and (split := split_from_name(inside[1])):
            below[split] = inside[1]
    if len(below) > 1:
        way = f"put splits above classes, as in {next(iter(below.values()))}/{found[0].name}"
        if len({one.name for one in found}) == 1:
            way = f"if they are splits, give data.path={root / found[0].file.relative_to(root).parts[0]}"
        raise ValueError(f"{root} has folders {listed([*below.values()])} below those of its classes; {way}")
    for top in splits or [""]:
        if not any(one.split == splits.get(top, "all") for one in found):
            raise ValueError(no_images_message(root / top, left))
    warn_left_out(len(every), left, root)
    return sorted(found, key=lambda one: ("all", *SPLITS).index(one.split))


def _class_name(folder: str) -> str:
    try:
        folder.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name of the class folder {folder!r} is no UTF-8; rename it") from error
    return normalize("NFC", folder)


def class_names(root: Path, found: Sequence[FolderImage]) -> list[str]:
    """Return the names of the folders with images.

    Raises:
        ValueError: if there is only one, or one without training images.
    """
    trained, every = {one.name for one in found if one.split in ("train", "all")}, {one.name for one in found}
    if strange := sorted(every - trained):
        near = "".join(f"; {a!r} and {b!r} are two classes" for a, b in _similar_names(every))
        raise ValueError(
            f"{root} has no training images of {listed(strange)}; add some, or remove the others of these{near}"
        )
    if len(trained) < 2:
        raise ValueError(f"{root} has images of one class only, {listed(trained)}; there is nothing to tell apart")
    return sorted(trained)


def _similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ in case or spaces only."""
    groups = defaultdict(list)
    for name in sorted(names):
        groups["".join(name.casefold().split())].append(name)
    return [(group[0], other) for group in groups.values() for other in group[1:]]


def _warn_classes(root: Path, splits: dict[str, str], found: Sequence[FolderImage], classes: Sequence[str]) -> None:
    """Warn of class folders without images, and of names that look the same."""
    given = {(one.split, one.name) for one in found}
    folders = [(top, folder) for top in splits or [""] for folder in _folders(root / top)]
    empty = [
        folder.relative_to(root)
        for top, folder in folders
        if (splits.get(top, "all"), normalize("NFC", folder.name)) not in given
    ]
    warn_left_out(len(folders), {"without an image": empty}, root, "class folders")
    if alike := _similar_names(classes):
        (a, b), count = alike[0], len(alike)
        warn_data(f"{count} pairs of classes in {root} differ in case or blanks alone, and stay apart: {a!r} and {b!r}")


def _folders(folder: Path) -> list[Path]:
    """Return the sub-folders, except those that `walk_files` skips."""
    inside = (path for path in sorted(folder.iterdir()) if path.is_dir())
    return [path for path in inside if not path.name.startswith(".") and path.name != "__MACOSX"]


def _common_shape(files: list[Path], config: DataConfig) -> tuple[int, int, int]:
    """Return the shape of all images: grey if all are; their own size, or data.size.

    Raises:
        ValueError: if their sizes differ and data.size is not set.
    """

    def header(file: Path) -> tuple[tuple[int, int], str] | None:
        try:
            with open_image(file) as image:
                return image.size, image.mode
        except ValueError:
            return None  # `_decode_all` says so, or skips it

    with ThreadPoolExecutor() as pool:
        headers = {known for known in pool.map(header, files) if known}
    channels = 1 if headers and {mode for _, mode in headers} <= GREY_MODES else 3
    if config.size:
        return channels, config.size, config.size
    sizes = {size for size, _ in headers}
    if len(sizes) > 1:
        raise ValueError(f"images differ in size ({len(sizes)} sizes); set data.size, for example 64")
    if not sizes:
        raise ValueError(f"none of the {len(files)} files can be read as an image")
    width, height = sizes.pop()
    return channels, height, width


def _decode_all(
    root: Path, files: list[Path], shape: tuple[int, int, int], on_error: OnError
) -> tuple[list[int], np.ndarray | None, dict[str, ValueRange]]:
    """Decode every file once, and those of more than 8 bits again, when the range of all of them is known.

    Returns:
        Indices of the images, their pixels if they fit into memory, and ranges by mode.
    Raises:
        ValueError: for the first file that is no image, unless they are to be skipped.
    """
    keep = len(files) * int(np.prod(shape)) <= MAX_BYTES_IN_MEMORY

    def try_decode(file: Path, ranges: dict[str, ValueRange]) -> DecodedImage | ValueError:
        try:
            image = decode_image(file, shape, ranges)
            return image if keep else image._replace(pixels=image.pixels[:, :1, :1].copy())  # a view would keep all
        except ValueError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda file: try_decode(file, {}), files))
        ranges = _ranges(results)
        deep = [n for n, result in enumerate(results) if isinstance(result, DecodedImage) and result.extrema]
        for n, again in zip(deep, pool.map(lambda n: try_decode(files[n], ranges), deep), strict=True):
            results[n] = again
    bad = [result for result in results if isinstance(result, ValueError)]
    if bad and on_error is OnError.error:
        raise ValueError(f"{bad[0]} ({len(bad)} such files); data.on_error=skip leaves them out")
    warn_left_out(len(files), {"that cannot be read": bad}, root)
    good = {n: result for n, result in enumerate(results) if isinstance(result, DecodedImage)}
    if not good:
        raise ValueError(f"none of the {len(files)} files can be read as an image")
    warn_remarks([files[n] for n in good], [*good.values()], root)
    return list(good), np.stack([image.pixels for image in good.values()]) if keep else None, ranges


def _ranges(results: Sequence[DecodedImage | ValueError]) -> dict[str, ValueRange]:
    """Return the range that is scaled to 0 … 255, for each mode of more than 8 bits."""
    extrema = [result.extrema for result in results if isinstance(result, DecodedImage) and result.extrema]
    return {
        mode: value_range(min(e.low for e in extrema if e.mode == mode), max(e.high for e in extrema if e.mode == mode))
        for mode in sorted({extrema.mode for extrema in extrema})
    }
