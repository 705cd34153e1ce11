"""Image files: found by their suffixes, decoded, and fitted to a shape.

Shapes: C channels · Y rows · X columns, in pixels
"""

import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile, features

from domains.data_warnings import warn_data, warn_left_out
from domains.files import walk_files
from domains.vision.modes import Extent, Range, standard

CODECS = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}  # Pillow may be built without
OUTSIDE = ("EPS", "MPEG")  # the one needs Ghostscript, the other is no image
UNREAD = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")  # of telephones and cameras
CLUTTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")  # that systems put into folders
# What Pillow raises over damaged files:
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, LookupError, TypeError, ArithmeticError)
DAMAGED += (RuntimeError, ImageCms.PyCMSError, Image.DecompressionBombError, Image.DecompressionBombWarning)
LONGEST = 16  # times the part that is shown: what an image is cut to before it is resized


class Decoded(NamedTuple):
    """An image in the shape that was asked for, and what was done to it that loses or guesses something."""

    pixels: np.ndarray  # (C, Y, X), uint8
    remarks: list[str]
    extent: Extent | None  # of an image of more than 8 bits


@cache
def formats() -> dict[str, str]:
    """The suffixes of images that Pillow, as it is built here, can read by itself, and their formats."""
    Image.init()
    stubs = {name for name, (kind, _) in Image.OPEN.items() if isinstance(kind, type)}
    stubs = {name for name in stubs if issubclass(Image.OPEN[name][0], ImageFile.StubImageFile)}  # pyright: ignore
    missing = {name for name, codec in CODECS.items() if not features.check(codec)}
    able = Image.OPEN.keys() - stubs - missing - {*OUTSIDE}
    found = {suffix: name for suffix, name in Image.registered_extensions().items() if name in able}
    return found | {".mpo": "JPEG"}  # several of them, of which the first is the picture


def image_files(source: Path) -> list[Path]:
    """The file itself, or the images of a folder and its sub-folders, in order of their names; not what is hidden.

    Raises:
        ValueError: if there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source} does not exist; give an image file or a folder of images")
    found = walk_files(source)
    files, left = sorted_out(found, source)
    if not files:
        raise ValueError(no_images(source, left))
    warn_left_out(len(found), left, source)
    return files


def sorted_out(files: Iterable[Path], folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """The images among files, by their suffixes; and the others by what they are, but for clutter."""
    images, left = [], {}
    for file in files:
        suffix = file.suffix.lower()
        if suffix in formats():
            images.append(file)
        elif file.name.lower() not in CLUTTER:
            unread = ", which Pillow cannot read: save as JPEG" if suffix in UNREAD else ""
            left.setdefault(f"{suffix or 'without a suffix'}{unread}", []).append(file.relative_to(folder))
    return images, left


def no_images(folder: Path, left: Mapping[str, Sequence[Path]]) -> str:
    others = ", ".join(f"{len(files)} {what} (first: {files[0]})" for what, files in left.items())
    return f"{folder} holds no images, such as .jpg, .png or .tif{f', but {others}' if others else ''}"


@contextmanager
def opened(file: Path | IO[bytes], name: str | None = None) -> Iterator[Image.Image]:
    """An image file, open in Pillow; whatever Pillow says of it within is one ValueError, with the file's name."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # notes of a camera that are damaged
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream = open(file, "rb") if isinstance(file, Path) else file  # noqa: SIM115
            with stream, Image.open(stream, formats=sorted(set(formats().values()))) as image:  # not of the name: in a
                yield image  # TIFF that it maps into memory, Pillow 13 takes the orientation for done
    except DAMAGED as error:
        raise ValueError(f"{name or file} cannot be read as an image: {error}") from error


def decode(file: Path, shape: tuple[int, int, int], ranges: Mapping[str, Range] | None = None) -> Decoded:
    """A file in a shape (C, Y, X), the way up that a camera noted: resized until it just covers it, and its middle cut
    out.

    Args:
        ranges: what becomes 0 … 255 in images of more than 8 bits, by mode; an image's own range if there is none.
    Raises:
        ValueError: if it cannot be read as an image.
    """
    with opened(file) as image:
        image, remarks, extent = standard(image, shape[0], ranges)
        pixels = covered(image, *shape[1:])
    if (pixels == pixels[:, :1, :1]).all():
        remarks.append("of a single colour, as they are read")
    return Decoded(pixels, remarks, extent)


def read_image(file: Path, shape: tuple[int, int, int], ranges: Mapping[str, Range] | None = None) -> np.ndarray:
    """`decode` without what is to be said."""
    return decode(file, shape, ranges).pixels


def say_remarks(files: Sequence[Path], images: Sequence[Decoded], where: Path) -> None:
    """Say in one line for each kind of remark how many of the images it is about."""
    about: dict[str, list[str]] = {}
    for file, image in zip(files, images, strict=True):
        name = str(file.relative_to(where) if file != where and file.is_relative_to(where) else file.name)
        for remark in image.remarks:
            deep = image.extent if remark.startswith("of mode") else None
            about.setdefault(remark, []).append(f"{name} from {deep.low:g} to {deep.high:g}" if deep else name)
    for remark, names in about.items():
        warn_data(f"{len(names)} of {len(files)} images in {where}: {remark} (first: {names[0]})")


def covered(image: Image.Image, rows: int, columns: int) -> np.ndarray:
    """(C, Y, X): resized until it just covers the shape, and its middle cut out."""
    scale = max(rows / image.height, columns / image.width)
    image = _shortened(image, round(LONGEST * rows / scale) + 1, round(LONGEST * columns / scale) + 1)
    size = (max(columns, round(image.width * scale)), max(rows, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    left, top = (size[0] - columns) // 2, (size[1] - rows) // 2
    pixels = np.asarray(image.crop((left, top, left + columns, top + rows)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _shortened(image: Image.Image, rows: int, columns: int) -> Image.Image:
    """The middle of an image that is longer than that: resized as a whole, a strip of one row would fill the memory."""
    across, down = (max(0, (image.width - columns) // 2), max(0, (image.height - rows) // 2))
    return image.crop((across, down, image.width - across, image.height - down)) if across or down else image
