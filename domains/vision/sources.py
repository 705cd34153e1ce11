"""Where images come from. Each source gives the same thing: labels, class names, splits, and pixels on demand.

Shapes: N images · B of them · C channels · Y rows · X columns, in pixels
"""

import gzip
import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from domains.config import data_home
from domains.data import SPLITS
from domains.faults import listed
from domains.vision.config import DataConfig, OnError, Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
UNREAD = (".heic", ".heif", ".dng", ".cr2", ".nef", ".arw")  # of telephones and cameras; Pillow alone reads none
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist
TURN = Image.Transpose
UPRIGHT = {2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE}  # EXIF's numbers
UPRIGHT |= {6: TURN.ROTATE_270, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_90}
STREAMS = ("wds/", "tfds/", "hfids/")  # timm's names for what comes in an order of its own
IN_MEMORY = 2**30  # bytes of decoded pixels that are kept
FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
TRAIN_FOLDERS, VAL_FOLDERS, TEST_FOLDERS = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")


@dataclass
class Images:
    """A data set.

    Attributes:
        labels: (N,), int64.
        classes: the name of each label.
        splits: "train", "val" and "test" -> indices.
        shape: (C, Y, X) of every image.
        read: indices -> (B, C, Y, X), float32 in [0, 1].
    """

    labels: np.ndarray
    classes: list[str]
    splits: dict[str, np.ndarray]
    shape: tuple[int, int, int]
    read: Callable[[Sequence[int] | np.ndarray], Tensor]


def open_images(config: DataConfig) -> Images:
    """The data set that a configuration names.

    Raises:
        ValueError: if it is not there, or cannot be read; it says what to do.
    """
    match config.source:
        case Source.digits:
            return _digits(config)
        case Source.folder:
            return _folder(config)
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


def image_files(source: Path) -> list[Path]:
    """The file itself, or the images of a folder and its sub-folders, in order of their names; not what is hidden.

    Raises:
        ValueError: if there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source} does not exist; give an image file or a folder of images")
    found = sorted(p for p in source.rglob("*") if p.is_file() and not _hidden(p.relative_to(source)))
    files = [p for p in found if p.suffix.lower() in SUFFIXES]
    unread = [p for p in found if p.suffix.lower() in UNREAD]
    if not files:
        other = f", but {unread[0].name} and the like, which Pillow cannot read; save as JPEG" if unread else ""
        raise ValueError(f"{source} holds no images ({', '.join(SUFFIXES)}){other}")
    if unread:
        warnings.warn(
            f"left out of {source}: {len(unread)} that Pillow cannot read, such as {unread[0].name}; save as JPEG",
            stacklevel=2,
        )
    return files


def _hidden(path: Path) -> bool:
    """Whether a system or a program put it there, and no person."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def read_image(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The file as (C, Y, X), uint8, the way up that a camera noted: resized until it just covers the shape, and its
    middle cut out.

    Raises:
        ValueError: if it cannot be read as an image.
    """
    channels, rows, columns = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # notes of a camera that are damaged
            with Image.open(file) as image:
                if turn := _turn(image):
                    image = image.transpose(turn)
                if image.mode.startswith("I;16"):  # convert would make white of all above 255
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                image = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error
    return covered(image, rows, columns).reshape(rows, columns, channels).transpose(2, 0, 1)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What sets a photograph upright, by the orientation that its camera noted; None if it noted none."""
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):  # notes that are damaged
        return None


def covered(image: Image.Image, rows: int, columns: int) -> np.ndarray:
    """(Y, X) or (Y, X, C): resized until it just covers the shape, and its middle cut out."""
    scale = max(rows / image.height, columns / image.width)
    size = (max(columns, round(image.width * scale)), max(rows, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    left, top = (size[0] - columns) // 2, (size[1] - rows) // 2
    return np.asarray(image.crop((left, top, left + columns, top + rows)))


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
    rest, test = _split(np.arange(len(labels)), labels, 0.25, 0)
    train, val = _split(rest, labels, 0.1, 0)
    splits = {"train": train, "val": val, "test": test}
    return Images(labels, [str(n) for n in range(10)], splits, (1, 8, 8), lambda indices: images[np.asarray(indices)])


def _folder(config: DataConfig) -> Images:
    """Class names are those of the sub-folders; folders train, val and test above them are splits."""
    root = Path(config.path or "")
    if config.path is None or not root.is_dir():
        wrong = "data.path is needed" if config.path is None else f"data.path={config.path} is no folder"
        raise ValueError(f"{wrong}; give a folder with a sub-folder of images for each class")
    names = {"train": TRAIN_FOLDERS, "val": VAL_FOLDERS, "test": TEST_FOLDERS}
    parts = {split: next((root / n for n in known if (root / n).is_dir()), None) for split, known in names.items()}
    tops = {split: path for split, path in parts.items() if path} if parts["train"] else {"all": root}
    found = [(file, file.relative_to(top).parts, split) for split, top in tops.items() for file in image_files(top)]
    loose = [file for file, inside, _ in found if len(inside) < 2]
    if loose:
        raise ValueError(f"{loose[0]} lies in no sub-folder; each class needs a sub-folder of its own, named after it")
    _classes(root, found)  # says what is wrong before all files are read
    files = [file for file, *_ in found]
    shape = _shape(files, config)
    good, pixels = _decoded(files, shape, config.on_error)
    files, found = [files[n] for n in good], [found[n] for n in good]
    classes = _classes(root, found)
    labels, where = np.array([classes.index(inside[0]) for _, inside, _ in found]), np.array([s for *_, s in found])

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        arrays = pixels[np.asarray(indices)] if pixels is not None else [read_image(files[n], shape) for n in indices]
        return torch.from_numpy(np.stack(list(arrays))).float() / 255

    return Images(labels, classes, _splits(config, labels, where), shape, read)


def _classes(root: Path, found: Sequence[tuple[Path, tuple[str, ...], str]]) -> list[str]:
    """The names of the folders that images lie in.

    Raises:
        ValueError: if there is one alone, or one that is not among those to train on.
    """
    trained = {inside[0] for _, inside, split in found if split in ("train", "all")}
    if strange := sorted({inside[0] for _, inside, _ in found} - trained):
        raise ValueError(f"{root} has no training images of {listed(strange)}; add some, or remove the others of these")
    if len(trained) < 2:
        raise ValueError(f"{root} has images of one class only, {listed(trained)}; there is nothing to tell apart")
    return sorted(trained)


def _timm(config: DataConfig) -> Images:
    """Whatever timm.data.create_dataset can read in any order: hfds/…, torch/…, or a folder with train and validation.

    Raises:
        ValueError: for a stream, or what timm cannot open, or would take for training and for test.
    """
    from timm.data import create_dataset  # pyright: ignore[reportPrivateImportUsage]

    if config.name is None:
        raise ValueError("data=timm needs data.name=…, the name of a data set of timm, such as hfds/cifar10")
    if config.name.lower().startswith(STREAMS):
        raise ValueError(
            f"data.name={config.name} is a stream, which gives no image by its number; possible: hfds/…, torch/…, or "
            "data.name=folder with data.path=FOLDER"
        )
    try:
        parts: dict[str, Any] = {
            ours: create_dataset(config.name, root=config.path, split=theirs)
            for ours, theirs in (("train", "train"), ("test", "validation"))
        }
    except (OSError, RuntimeError, ValueError, AssertionError, ImportError) as error:
        raise ValueError(f"timm cannot open {config.name!r} (data.path={config.path}): {error}") from error
    readers = [getattr(part, "reader", part) for part in parts.values()]  # torchvision's sets have none
    if hasattr(readers[0], "samples") and readers[0].samples == readers[1].samples:
        raise ValueError(f"data.path={config.path} has no folders train and validation; data=images draws the splits")
    names, others = (getattr(reader, "class_to_idx", {}) for reader in readers)
    if names != others:
        raise ValueError(f"the classes of {config.name!r} in training are {listed(names)}; in test, {listed(others)}")
    items = [(split, n) for split, part in parts.items() for n in range(len(part))]
    labels = np.concatenate([_labels(part) for part in parts.values()])
    first = parts["train"][0][0].convert("RGB")
    side = config.size
    shape = (3, side or first.height, side or first.width)

    def read(indices: Sequence[int] | np.ndarray) -> Tensor:
        pictures = [parts[items[n][0]][items[n][1]][0].convert("RGB") for n in indices]
        return torch.from_numpy(np.stack([covered(p, *shape[1:]).transpose(2, 0, 1) for p in pictures])).float() / 255

    classes = sorted(names, key=lambda name: names[name]) or [str(n) for n in range(labels.max() + 1)]
    return Images(labels, classes, _splits(config, labels, np.array([split for split, _ in items])), shape, read)


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

    return Images(labels.astype(np.int64), classes, _splits(config, labels, where), shape, read)


def _splits(config: DataConfig, labels: np.ndarray, where: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of each split, drawn by class where the data bring none."""
    given = {split: np.flatnonzero(where == split) for split in SPLITS}
    rest = given["train"] if len(given["train"]) else np.arange(len(labels))
    if not len(given["test"]):
        rest, given["test"] = _split(rest, labels, config.test_share, config.split_seed)
    if not len(given["val"]):
        rest, given["val"] = _split(rest, labels, config.val_share, config.split_seed)
    return given | {"train": rest}


def _split(indices: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        kept, drawn = train_test_split(indices, test_size=share, stratify=labels[indices], random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"{len(indices)} images of {len(set(labels[indices]))} classes cannot be split by data.test_share and "
            f"data.val_share, with each class on both sides ({error}); add images, or raise the shares"
        ) from error
    return np.asarray(kept), np.asarray(drawn)


def _shape(files: list[Path], config: DataConfig) -> tuple[int, int, int]:
    """Grey if all of the first 100 images are, and of their size, unless data.size says another.

    Raises:
        ValueError: if their sizes differ and none is given.
    """
    sizes, modes = set(), set()
    for file in files[:100]:
        try:
            with Image.open(file) as image:
                sizes.add(image.size)
                modes.add(image.mode)
        except (OSError, Image.DecompressionBombError):
            continue  # `_decoded` says so, or skips it
    channels = 1 if modes and modes <= {"L", "1", "I;16", "LA"} else 3
    if config.size:
        return channels, config.size, config.size
    if len(sizes) != 1:
        raise ValueError(f"images differ in size ({len(sizes)} sizes among the first); set data.size, for example 64")
    width, height = sizes.pop()
    return channels, height, width


def _decoded(files: list[Path], shape: tuple[int, int, int], on_error: OnError) -> tuple[list[int], np.ndarray | None]:
    """Every file is opened once: indices of those that are images, and their pixels if they fit the memory.

    Raises:
        ValueError: for the first that is not, unless they are to be skipped.
    """
    keep = len(files) * int(np.prod(shape)) <= IN_MEMORY

    def decode(file: Path) -> np.ndarray | ValueError:
        try:
            pixels = read_image(file, shape)
            return pixels if keep else pixels[:, :1, :1].copy()  # a view would keep all of them
        except ValueError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(decode, files))
    bad = [str(result) for result in results if isinstance(result, ValueError)]
    if bad and on_error is OnError.error:
        raise ValueError(f"{bad[0]} ({len(bad)} such files); data.on_error=skip leaves them out")
    if bad:
        shown = "".join(f"\n  {line}" for line in bad[:10]) + ("\n  …" if len(bad) > 10 else "")
        warnings.warn(f"{len(bad)} of {len(files)} files are left out:{shown}", stacklevel=2)
    good = {n: result for n, result in enumerate(results) if not isinstance(result, ValueError)}
    if not good:
        raise ValueError(f"none of the {len(files)} files can be read as an image")
    return list(good), np.stack(list(good.values())) if keep else None


def _idx(file: Path) -> np.ndarray:
    """An array in the IDX format of MNIST (LeCun et al. 1998), gzipped: two zeros, type, dimensions, sizes, numbers."""
    with gzip.open(file) as stream:
        raw = stream.read()
    sizes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
