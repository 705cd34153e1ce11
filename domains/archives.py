"""Packed files from anywhere: a small one may unpack to more than any memory holds, and is then refused."""

import os
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np


class Readable(Protocol):
    """The common interface of files from lzma, gzip, tarfile and open()."""

    def read(self, size: int, /) -> bytes: ...


ROOM = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # bytes: a quarter of this machine's memory


def unpacked(file: Readable, where: str) -> bytes:
    """Return all that an open file unpacks to. Raises ValueError if that is more than ROOM."""
    data = file.read(ROOM + 1)
    check_room(len(data), where)
    return data


def check_room(size: int, where: str) -> None:
    """Raises ValueError if so many bytes are more than ROOM."""
    if size > ROOM:
        raise ValueError(f"{where} takes more than {ROOM / 1e9:.1f} GB of memory, a quarter of what is here; cut it up")


def read_npz(file: Path | BinaryIO, where: str, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, those called `names` if given. Nothing in it is unpickled.

    Raises:
        ValueError: if it is none, or cut short, or unpacks to more than ROOM.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            kept = [info for info in archive.infolist() if names is None or info.filename.removesuffix(".npy") in names]
        check_room(sum(info.file_size for info in kept), where)
        if not isinstance(file, Path):
            file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:  # each look at a name unpacks it anew: look once
            return {name: arrays[name] for name in arrays.files if names is None or name in names}
    except (OSError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{where} is no .npz file, or cut short ({error})") from error
