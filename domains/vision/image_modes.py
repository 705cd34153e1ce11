"""Conversion of Pillow's modes to 8 bits of grey or RGB: deep images are scaled, transparent ones get a background.

Shapes: Y rows · X columns, in pixels
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile

# By EXIF orientation:
EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
UNSIGNED_RAW_MODES = {"I;32", "I;32N", "I;32B"}  # Pillow reads them as signed
COMMON_RANGES = ((0, 1), (-1, 1), (0, 255), (0, 1023), (0, 4095), (0, 16383), (0, 65535))  # narrow ones first
MIN_FILL = 1 / 8  # part of a common range that pixels must span to be scaled by it
MIN_CONTRAST = 32  # of 255: with less, a drawing is invisible on its background
SAMPLE_FACTORS = {"L;2": 85, "L;4": 17}  # Pillow multiplies samples by them, but not the transparent colour
CHUNK_PIXELS = 2**20  # pixels scaled at once

ValueRange = tuple[float, float]


class Extrema(NamedTuple):
    """The smallest and the largest pixel of an image of more than 8 bits."""

    mode: str  # "I;16", "I" or "F"
    low: float
    high: float


class ConvertedImage(NamedTuple):
    """An image of mode L or RGB, and remarks on changes that lose or guess something."""

    image: Image.Image
    remarks: list[str]
    extrema: Extrema | None


def convert_to_8_bit(
    image: Image.Image, channels: int, ranges: Mapping[str, ValueRange] | None = None
) -> ConvertedImage:
    """Turn an opened image upright and convert it to L (1 channel) or RGB (3).

    Args:
        ranges: what becomes 0 … 255 in images of more than 8 bits, by mode; an image's own range if there is none.
    Raises:
        ValueError: for NaN or infinite pixels, and what Pillow itself cannot convert.
    """
    raw, remarks, extrema = _rawmode(image), [], None
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):  # there the first is the image
        remarks.append("of several frames or pages, of which the first is read")
    image.load()  # Pillow turns TIFF and AVIF itself
    if turn := _exif_transpose(image):
        image = image.transpose(turn)
    if image.mode == "F" or image.mode.startswith("I"):
        image, remark, extrema = _scale_to_8_bit(image, raw, ranges or {})
        remarks.append(remark)
    elif ";16" in raw:
        remarks.append("of 16 bits a colour, of which Pillow reads the upper 8")
    if image.has_transparency_data:
        image, remark = _flatten_alpha(image, raw)
        remarks += [remark] if remark else []
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        image = converted
    return ConvertedImage(image.convert("L" if channels == 1 else "RGB"), remarks, extrema)


def value_range(low: float, high: float) -> ValueRange:
    """Return the range that pixels from `low` to `high` are scaled by: the narrowest common one that contains them,
    such as that of 12 bits, if they span an eighth of it or more; else their own.
    """
    candidates = [(a, b) for a, b in COMMON_RANGES if a <= low and high <= b]
    if low == high:
        return candidates[0] if candidates else (low, low + 1)
    return next(((a, b) for a, b in candidates if high - low >= MIN_FILL * (b - a)), (low, high))


def _rawmode(image: Image.Image) -> str:
    """Return Pillow's raw mode, the format of samples in the file; "" if unknown."""
    args = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _exif_transpose(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns a photograph upright, by its EXIF orientation; None without one.

    ImageOps.exif_transpose also rewrites the EXIF data, and fails if they are damaged.
    """
    try:
        return EXIF_TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):  # notes that are damaged
        return None


def _scale_to_8_bit(image: Image.Image, raw: str, ranges: Mapping[str, ValueRange]) -> tuple[Image.Image, str, Extrema]:
    """Convert an image of mode I;16, I or F to mode L, or LA if a grey value is transparent; with a remark."""
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    values = np.asarray(image)
    if raw in UNSIGNED_RAW_MODES:
        values = values.view(np.uint32)
    extrema = Extrema(mode, float(values.min()), float(values.max()))
    if not np.isfinite(extrema[1:]).all():
        raise ValueError("some of its pixels are NaN or infinite")
    remark = f"of mode {mode}, scaled to 8 bits, each by its own range"
    if mode in ranges:
        low, high = ranges[mode]
        cut = extrema.low < low or extrema.high > high
        remark = f"of mode {mode}, scaled to 8 bits from {low:g} … {high:g}{' and cut there' if cut else ''}"
    grey = Image.fromarray(_to_uint8(values, *ranges.get(mode, value_range(*extrema[1:]))))
    if isinstance(key := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey, remark, extrema


def _to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return ⌊256 (v - low) / (high - low)⌋, at most 255, as uint8: of 16 bits the upper 8."""
    scaled = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), scaled.reshape(-1)
    for start in range(0, len(flat), CHUNK_PIXELS):
        part = (flat[start : start + CHUNK_PIXELS].astype(np.float64) - low) * 256 / (high - low)
        out[start : start + CHUNK_PIXELS] = part.clip(0, 255)
    return scaled


def _flatten_alpha(image: Image.Image, raw: str) -> tuple[Image.Image, str | None]:
    """Put the image on white, or on black if it is so light that white would hide it; with a remark.

    An opaque image is returned as it is.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and raw in SAMPLE_FACTORS:
        image.info["transparency"] = key * SAMPLE_FACTORS[raw]
    elif isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(colour >> 8 for colour in key)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        image.info.pop("transparency", None)
        return image, None
    white, black = (Image.alpha_composite(Image.new("RGBA", rgba.size, g), rgba) for g in ("white", "black"))
    if _contrast(white) < MIN_CONTRAST and _contrast(white) < _contrast(black):
        return black.convert("RGB"), "partly transparent and so light that they are laid on black"
    return white.convert("RGB"), "partly transparent, and laid on white"


def _contrast(image: Image.Image) -> int:
    """Return the largest difference within a channel, of 255."""
    return max(high - low for low, high in image.convert("RGB").getextrema())  # pyright: ignore
