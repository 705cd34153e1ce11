"""Reader of Debian's promod3-data package, which holds one file, structure_db.dat."""

import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from domains.config import data_home
from domains.protein.alphabet import encode_residues, encode_ss8
from domains.protein.chain import Chain, virtual_cb

DATABASE = "structure_db.dat"
STEP = 0.01  # Å
COLUMNS = [("seq", "u1", 1), ("xyz", "<u2", 12), ("angles", "u1", 4), ("sasa", "<u2", 1), ("depth", "<u2", 1)]
COLUMNS += [("ss8", "u1", 1), ("profile", "<i2", 20)]


def open_database(path: Path) -> Path:
    """Return the path of structure_db.dat; extract it from a package into $ATTEND_DATA once.

    Raises:
        ValueError: if it cannot be extracted.
    """
    if path.suffix != ".deb":
        return path
    home = data_home()
    extracted = home / path.stem / DATABASE
    if not extracted.is_file():
        extracted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=extracted.parent) as unfinished:
            part = Path(unfinished, DATABASE)
            try:
                with open(path, "rb") as package, open(part, "wb") as out:
                    _extract(package, out)
            except (ValueError, EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
                raise ValueError(
                    f"{DATABASE} cannot be taken out of {path}: {str(error) or 'its data end'}; if it is another "
                    "package, cut short, or packed as Python does not know, give the path of "
                    f"{DATABASE} itself (dpkg-deb -x)"
                ) from error
            os.replace(part, extracted)  # another process may have written the same
    return extracted


def _extract(package: BinaryIO, out: BinaryIO) -> None:
    """Extract the database from a .deb file: an ar archive with a compressed data.tar (deb(5), ar(5))."""
    package.read(len(b"!<arch>\n"))
    while (header := package.read(60)) and not header.startswith(b"data.tar"):
        size = int(header[48:58])
        package.seek(size + size % 2, os.SEEK_CUR)
    with tarfile.open(fileobj=package, mode="r|*") as archive:
        for member in archive:
            if member.isreg() and member.name.endswith(DATABASE) and (file := archive.extractfile(member)):
                return shutil.copyfileobj(file, out, 2**20)
    raise ValueError("it is not there")


def read_promod3(path: Path) -> list[Chain]:
    """Read the chains of structure_db.dat. Little-endian, found by inspection and checked by bond lengths:

        77 bytes; u64 chains; of each: u32 and PDB id, u32 and chain id, u32 first residue in the arrays, u16 residues,
        u16 first number, 3 f32 shift; then eight arrays, a u64 count before each: letter, 12 u16 backbone (N, CA, C, O
        in 0.01 Å), 4 bytes, u16, u16, letter of DSSP, 20 i16 frequencies in 1/10,000, 20 i16 others

    The last array is computed from the structure itself, and is not read.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
        entries, start = _index(data)
        arrays = {}
        for key, kind, width in COLUMNS:
            (count,) = struct.unpack("<Q", data[start : start + 8].tobytes())
            arrays[key] = np.ndarray((count, width), kind, data, start + 8)
            start += 8 + count * width * np.dtype(kind).itemsize
    except (OSError, ValueError, struct.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no {DATABASE} of promod3-data, or cut short") from error
    chains = []
    for name, first, size in entries:
        rows = slice(first, first + size)
        if not 0 < size <= len(arrays["seq"]) - first:
            raise ValueError(f"{path} is no {DATABASE} of promod3-data, or cut short: {name} has no residues in it")
        sequence = encode_residues(arrays["seq"][rows].tobytes().decode("latin-1"))
        backbone = (arrays["xyz"][rows].reshape(-1, 4, 3)[:, :3] * STEP).astype(np.float32)
        profile = (arrays["profile"][rows] / 10_000).astype(np.float32)
        ss8 = encode_ss8(arrays["ss8"][rows])
        chains.append(Chain(name, sequence, profile, virtual_cb(backbone, sequence), ss8=ss8))
    return chains


def _index(data: np.ndarray) -> tuple[list[tuple[str, int, int]], int]:
    """Return (name, first residue, residues) of each chain, and the offset of the arrays."""
    at, entries = 77, []

    def take(form: str) -> tuple:
        nonlocal at
        start, at = at, at + struct.calcsize(form)
        return struct.unpack(form, data[start:at].tobytes())

    def text() -> str:
        (size,) = take("<I")
        return take(f"{size}s")[0].decode()

    (count,) = take("<Q")
    for _ in range(count):
        name = f"{text()}_{text()}"
        first, size, *_ = take("<IHH3f")
        entries.append((name, first, size))
    return entries, at
