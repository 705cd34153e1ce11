"""Pillow's modes as 8 bits of grey or of red, green and blue: deep ones are scaled, transparent ones laid on a ground.

Shapes: Y rows · X columns, in pixels
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile

TURN = Image.Transpose
UPRIGHT = {2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE}  # EXIF's numbers
UPRIGHT |= {6: TURN.ROTATE_270, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_90}
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
UNSIGNED = {"I;32", "I;32N", "I;32B"}  # Pillow takes them for signed
CUSTOMARY = ((0, 1), (-1, 1), (0, 255), (0, 1023), (0, 4095), (0, 16383), (0, 65535))  # ranges, narrow ones first
FILLED = 1 / 8  # share of a customary range that pixels must span to be scaled by it
HIDDEN = 32  # a drawing whose colours differ by less, of 255, is not seen on its ground
SAMPLES = {"L;2": 85, "L;4": 17}  # what Pillow multiplies samples by, but no transparent colour
PART = 2**20  # pixels scaled at once

Range = tuple[float, float]


class Extent(NamedTuple):
    """The smallest and the largest pixel of an image of more than 8 bits."""

    mode: str  # "I;16", "I" or "F"
    low: float
    high: float


class Standard(NamedTuple):
    """An image of mode L or RGB, and what was done to it that loses or guesses something."""

    image: Image.Image
    remarks: list[str]
    extent: Extent | None


def standard(image: Image.Image, channels: int, ranges: Mapping[str, Range] | None = None) -> Standard:
    """Turn an opened image upright and convert it to L (1 channel) or RGB (3).

    Args:
        ranges: what becomes 0 … 255 in images of more than 8 bits, by mode; an image's own range if there is none.
    Raises:
        ValueError: for NaN or infinite pixels, and what Pillow itself cannot convert.
    """
    raw, remarks, extent = _rawmode(image), [], None
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):  # there the first is the picture
        remarks.append("of several frames or pages, of which the first is read")
    image.load()  # Pillow turns TIFF and AVIF itself
    if turn := _turn(image):
        image = image.transpose(turn)
    if image.mode == "F" or image.mode.startswith("I"):
        image, remark, extent = _scaled(image, raw, ranges or {})
        remarks.append(remark)
    elif ";16" in raw:
        remarks.append("of 16 bits a colour, of which Pillow reads the upper 8")
    if image.has_transparency_data:
        image, remark = _opaque(image, raw)
        remarks += [remark] if remark else []
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        image = converted
    return Standard(image.convert("L" if channels == 1 else "RGB"), remarks, extent)


def value_range(low: float, high: float) -> Range:
    """The range that pixels from `low` to `high` are scaled by: the narrowest customary one that holds them, such as
    that of 12 bits, if they span an eighth of it or more; their own otherwise."""
    holding = [(a, b) for a, b in CUSTOMARY if a <= low and high <= b]
    if low == high:
        return holding[0] if holding else (low, low + 1)
    return next(((a, b) for a, b in holding if high - low >= FILLED * (b - a)), (low, high))


def _rawmode(image: Image.Image) -> str:
    """How samples lie in the file; "" if Pillow does not say."""
    args = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that sets a photograph upright, by its EXIF orientation; None without one.

    ImageOps.exif_transpose writes the notes anew as well, and fails where they are damaged.
    """
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):  # notes that are damaged
        return None


def _scaled(image: Image.Image, raw: str, ranges: Mapping[str, Range]) -> tuple[Image.Image, str, Extent]:
    """An image of mode I;16, I or F in mode L, or LA if a grey stands for transparent; and a remark."""
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    values = np.asarray(image)
    if raw in UNSIGNED:
        values = values.view(np.uint32)
    extent = Extent(mode, float(values.min()), float(values.max()))
    if not np.isfinite(extent[1:]).all():
        raise ValueError("some of its pixels are NaN or infinite")
    remark = f"of mode {mode}, scaled to 8 bits, each by its own range"
    if mode in ranges:
        low, high = ranges[mode]
        cut = extent.low < low or extent.high > high
        remark = f"of mode {mode}, scaled to 8 bits from {low:g} … {high:g}{' and cut there' if cut else ''}"
    grey = Image.fromarray(_bytes(values, *ranges.get(mode, value_range(*extent[1:]))))
    if isinstance(key := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey, remark, extent


def _bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """⌊256 (v - low) / (high - low)⌋, at most 255, as uint8: of 16 bits the upper 8."""
    scaled = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), scaled.reshape(-1)
    for start in range(0, len(flat), PART):
        part = (flat[start : start + PART].astype(np.float64) - low) * 256 / (high - low)
        out[start : start + PART] = part.clip(0, 255)
    return scaled


def _opaque(image: Image.Image, raw: str) -> tuple[Image.Image, str | None]:
    """The image laid on white, or on black if it is so light that white would hide it; and a remark.

    Where nothing shines through, it stays as it is.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and raw in SAMPLES:
        image.info["transparency"] = key * SAMPLES[raw]
    elif isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(colour >> 8 for colour in key)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        image.info.pop("transparency", None)
        return image, None
    white, black = (Image.alpha_composite(Image.new("RGBA", rgba.size, g), rgba) for g in ("white", "black"))
    if _contrast(white) < HIDDEN and _contrast(white) < _contrast(black):
        return black.convert("RGB"), "partly transparent and so light that they are laid on black"
    return white.convert("RGB"), "partly transparent, and laid on white"


def _contrast(image: Image.Image) -> int:
    """The largest difference within a channel, of 255."""
    return max(high - low for low, high in image.convert("RGB").getextrema())  # pyright: ignore
