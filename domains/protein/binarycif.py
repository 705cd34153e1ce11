"""BinaryCIF: mmCIF's tables as columns of numbers, each packed by a chain of encodings, inside of MessagePack.

Source: the specifications of BinaryCIF 0.3 (Sehnal et al. 2020) and of MessagePack. Biopython's reader fails on files
of the PDB itself (an empty column of strings), and wants a package that it does not install.
"""

import struct
from itertools import pairwise
from typing import Any

import numpy as np

from domains.unpack import check_room

TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}
FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}  # numbers of MessagePack
FIXED |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
NUMBER = 40  # bytes that one takes in a list
DAMAGE = (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, struct.error)  # what it may lead to
DAMAGE += (RecursionError, ArithmeticError)
CONSTANT = {0xC0: None, 0xC2: False, 0xC3: True}
SIZED = {0xC4: "bin", 0xC5: "bin", 0xC6: "bin", 0xD9: "str", 0xDA: "str", 0xDB: "str"}
SIZED |= {0xDC: "array", 0xDD: "array", 0xDE: "map", 0xDF: "map"}
LENGTH = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
LENGTH |= {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


def parse_binary_cif(data: bytes, categories: tuple[str, ...]) -> tuple[dict[str, list], int]:
    """The columns of some categories, as {"_atom_site.Cartn_x": [1.5, …]}; "." and "?" as in mmCIF.

    They are those of the first block that has the first of the categories. How many other blocks have it comes second.

    Raises:
        ValueError: if it is no BinaryCIF, or cut short.
    """
    try:
        blocks = unpack(data)["dataBlocks"]
        those = [b for b in blocks if any(category["name"] == categories[0] for category in b["categories"])]
        block = (those or blocks)[0]
        columns = {
            f"{category['name']}.{column['name']}": _column(column)
            for category in block["categories"]
            if category["name"] in categories
            for column in category["columns"]
        }
    except DAMAGE as error:
        raise ValueError("it is no BinaryCIF file, or cut short") from error
    return columns, max(0, len(those) - 1)


def unpack(data: bytes) -> Any:
    """The value that MessagePack wrote. Raises struct.error at the end of the data."""
    at = 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        if at > len(data):
            raise struct.error("the data end")
        return data[at - count : at]

    def number(form: str) -> Any:
        return struct.unpack(form, take(struct.calcsize(form)))[0]

    def value() -> Any:
        head = take(1)[0]
        if head <= 0x7F or head >= 0xE0:
            return head if head <= 0x7F else head - 256
        if head in CONSTANT:
            return CONSTANT[head]
        if head in FIXED:
            return number(FIXED[head])
        if head in SIZED:
            kind, size = SIZED[head], number(LENGTH[head])
        elif head < 0xC0:
            kind = "map" if head < 0x90 else "array" if head < 0xA0 else "str"
            size = head & (31 if kind == "str" else 15)
        else:
            raise struct.error(f"byte {head:#x} stands for nothing here")
        match kind:
            case "bin":
                return take(size)
            case "str":
                return take(size).decode()
            case "array":
                return [value() for _ in range(size)]
            case _:
                return {value(): value() for _ in range(size)}

    return value()


def _column(column: dict[str, Any]) -> list:
    values = decode(column["data"]["data"], column["data"]["encoding"]).tolist()
    if not column.get("mask"):
        return values
    mask = decode(column["mask"]["data"], column["mask"]["encoding"])
    return [(value, ".", "?")[hidden] for value, hidden in zip(values, mask, strict=True)]


def decode(data: Any, encodings: list[dict[str, Any]]) -> np.ndarray:
    """Undo the encodings, the last of them first."""
    for encoding in reversed(encodings):
        data = _undo(data, encoding)
    return data


def _undo(data: Any, encoding: dict[str, Any]) -> np.ndarray:
    match encoding["kind"]:
        case "ByteArray":
            return np.frombuffer(data, TYPES[encoding["type"]])
        case "FixedPoint":
            return data / encoding["factor"]
        case "IntervalQuantization":
            low, high = encoding["min"], encoding["max"]
            return low + data * ((high - low) / (encoding["numSteps"] - 1))
        case "RunLength":
            check_room(NUMBER * int(data[1::2].sum()), "it")
            return np.repeat(data[::2], data[1::2])
        case "Delta":
            return data.cumsum(dtype=np.int64) + encoding["origin"]
        case "IntegerPacking":
            limits = np.iinfo(data.dtype)
            goes_on = (data == limits.max) | ((data == limits.min) & (not encoding["isUnsigned"]))
            ends = np.flatnonzero(~goes_on)  # a value is the sum of the limits that it passes, and a rest
            return np.add.reduceat(data.astype(np.int64), np.r_[0, ends[:-1] + 1]) if len(ends) else ends
        case "StringArray":
            offsets = decode(encoding["offsets"], encoding["offsetEncoding"])
            text = encoding["stringData"]
            strings = [text[a:b] for a, b in pairwise(offsets)]
            return np.array([*strings, ""], object)[decode(data, encoding["dataEncoding"])]  # -1 is an empty one
        case kind:
            raise KeyError(f"an encoding {kind!r}")
