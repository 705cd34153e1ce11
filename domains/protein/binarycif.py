"""BinaryCIF: mmCIF's tables as encoded columns in MessagePack.

Source: the specification of BinaryCIF 0.3 (Sehnal et al. 2020). Biopython's reader fails on files of the PDB itself (an
empty column of strings).
"""

from itertools import pairwise
from typing import Any

import msgpack
import numpy as np

from domains.archives import check_room

TYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}
NUMBER = 40  # bytes of a number in a list
MOST = 2**16  # of a list or table; msgpack allocates as many as a header claims
DAMAGE = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)  # exceptions from damaged files


def parse_binary_cif(data: bytes, categories: tuple[str, ...]) -> tuple[dict[str, list], int]:
    """Parse the columns of some categories, as {"_atom_site.Cartn_x": [1.5, …]}; "." and "?" as in mmCIF.

    They come from the first block with the first category. The number of other blocks with it is returned second.

    Raises:
        ValueError: if it is no BinaryCIF, or cut short.
    """
    try:
        told = msgpack.unpackb(data, max_array_len=MOST, max_map_len=MOST)
    except ValueError as error:
        raise ValueError("it is no BinaryCIF file, or cut short") from error
    try:
        blocks = told["dataBlocks"]
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
            ends = np.flatnonzero(~goes_on)  # a value is the sum of limit values and a remainder
            return np.add.reduceat(data.astype(np.int64), np.r_[0, ends[:-1] + 1]) if len(ends) else ends
        case "StringArray":
            offsets = decode(encoding["offsets"], encoding["offsetEncoding"])
            text = encoding["stringData"]
            strings = [text[a:b] for a, b in pairwise(offsets)]
            return np.array([*strings, ""], object)[decode(data, encoding["dataEncoding"])]  # -1: empty
        case kind:
            raise KeyError(f"an encoding {kind!r}")
