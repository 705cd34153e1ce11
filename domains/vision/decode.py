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
from domains.vision.image_modes import Extrema, ValueRange, convert_to_8_bit

CODECS = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}  # Pillow may be built without them
EXCLUDED_FORMATS = ("EPS", "MPEG")  # one needs Ghostscript, the other is not an image
# Formats of phones and cameras:
UNSUPPORTED_SUFFIXES = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")  # of operating systems
# What Pillow raises over damaged files:
DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, LookupError, TypeError, ArithmeticError)
DECODE_ERRORS += (RuntimeError, ImageCms.PyCMSError, Image.DecompressionBombError, Image.DecompressionBombWarning)
MAX_ASPECT_RATIO = 16  # of the part that an image is cut to before it is resized, to the part that is shown


class DecodedImage(NamedTuple):
    """An image in the requested shape, and remarks on changes that lose or guess something."""

    pixels: np.ndarray  # (C, Y, X), uint8
    remarks: list[str]
    extrema: Extrema | None  # of an image of more than 8 bits


@cache
def supported_formats() -> dict[str, str]:
    """Return the suffixes of images that this build of Pillow can read, and their formats."""
    Image.init()
    stubs = {name for name, (kind, _) in Image.OPEN.items() if isinstance(kind, type)}
    stubs = {name for name in stubs if issubclass(Image.OPEN[name][0], ImageFile.StubImageFile)}  # pyright: ignore
    missing = {name for name, codec in CODECS.items() if not features.check(codec)}
    able = Image.OPEN.keys() - stubs - missing - {*EXCLUDED_FORMATS}
    found = {suffix: name for suffix, name in Image.registered_extensions().items() if name in able}
    return found | {".mpo": "JPEG"}  # several JPEGs, the first is the image


def image_files(source: Path) -> list[Path]:
    """Return the file itself, or the images of a folder and its sub-folders, sorted by name; without hidden files.

    Raises:
        ValueError: if there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source} does not exist; give an image file or a folder of images")
    found = walk_files(source)
    files, left = separate_images(found, source)
    if not files:
        raise ValueError(no_images_message(source, left))
    warn_left_out(len(found), left, source)
    return files


def separate_images(files: Iterable[Path], folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Separate files by suffix: return the images, and the others by kind, without system files."""
    images, left = [], {}
    for file in files:
        suffix = file.suffix.lower()
        if suffix in supported_formats():
            images.append(file)
        elif file.name.lower() not in SYSTEM_FILES:
            unread = ", which Pillow cannot read: save as JPEG" if suffix in UNSUPPORTED_SUFFIXES else ""
            left.setdefault(f"{suffix or 'without a suffix'}{unread}", []).append(file.relative_to(folder))
    return images, left


def no_images_message(folder: Path, left: Mapping[str, Sequence[Path]]) -> str:
    others = ", ".join(f"{len(files)} {what} (first: {files[0]})" for what, files in left.items())
    return f"{folder} holds no images, such as .jpg, .png or .tif{f', but {others}' if others else ''}"


@contextmanager
def open_image(file: Path | IO[bytes], name: str | None = None) -> Iterator[Image.Image]:
    """Open an image file in Pillow; any error of Pillow becomes one ValueError with the file's name."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            stream = open(file, "rb") if isinstance(file, Path) else file  # noqa: SIM115
            known = sorted(set(supported_formats().values()))
            # Not opened by name: Pillow 13 ignores the orientation of a TIFF that it maps into memory.
            with stream, Image.open(stream, formats=known) as image:
                yield image
    except DECODE_ERRORS as error:
        raise ValueError(f"{name or file} cannot be read as an image: {error}") from error


def decode_image(
    file: Path, shape: tuple[int, int, int], ranges: Mapping[str, ValueRange] | None = None
) -> DecodedImage:
    """Read a file in a shape (C, Y, X), upright: resized until it just covers the shape, then center-cropped.

    Args:
        ranges: the range that becomes 0 … 255 in images of more than 8 bits, by mode; else the image's own range.
    Raises:
        ValueError: if it cannot be read as an image.
    """
    with open_image(file) as image:
        image, remarks, extrema = convert_to_8_bit(image, shape[0], ranges)
        pixels = resize_center_crop(image, *shape[1:])
    if (pixels == pixels[:, :1, :1]).all():
        remarks.append("of a single colour, as they are read")
    return DecodedImage(pixels, remarks, extrema)


def read_image(file: Path, shape: tuple[int, int, int], ranges: Mapping[str, ValueRange] | None = None) -> np.ndarray:
    """Return the pixels of `decode_image` alone."""
    return decode_image(file, shape, ranges).pixels


def warn_remarks(files: Sequence[Path], images: Sequence[DecodedImage], where: Path) -> None:
    """Warn once for each kind of remark, with the number of images."""
    about: dict[str, list[str]] = {}
    for file, image in zip(files, images, strict=True):
        name = str(file.relative_to(where) if file != where and file.is_relative_to(where) else file.name)
        for remark in image.remarks:
            deep = image.extrema if remark.startswith("of mode") else None
            about.setdefault(remark, []).append(f"{name} from {deep.low:g} to {deep.high:g}" if deep else name)
    for remark, names in about.items():
        warn_data(f"{len(names)} of {len(files)} images in {where}: {remark} (first: {names[0]})")


def resize_center_crop(image: Image.Image, rows: int, columns: int) -> np.ndarray:
    """Return (C, Y, X): resized until it just covers the shape, then center-cropped."""
    scale = max(rows / image.height, columns / image.width)
    image = _crop_long_side(
        image, round(MAX_ASPECT_RATIO * rows / scale) + 1, round(MAX_ASPECT_RATIO * columns / scale) + 1
    )
    size = (max(columns, round(image.width * scale)), max(rows, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    left, top = (size[0] - columns) // 2, (size[1] - rows) // 2
    pixels = np.asarray(image.crop((left, top, left + columns, top + rows)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _crop_long_side(image: Image.Image, rows: int, columns: int) -> Image.Image:
    """Crop the middle of a very long image: resizing a strip of one row as a whole would fill the memory."""
    across, down = (max(0, (image.width - columns) // 2), max(0, (image.height - rows) // 2))
    return image.crop((across, down, image.width - across, image.height - down)) if across or down else image
