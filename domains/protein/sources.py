"""Where chains come from. Each source gives the same thing: three splits of them.

Shapes: N residues of a chain · R residues of all chains · F = 20 amino acids
"""

import csv
import io
import lzma
import os
import shutil
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from domains.protein.alignment import Alignment, parse_a3m
from domains.protein.chain import Chain, seen, virtual_cb
from domains.protein.clusters import drawn, split_by_cluster
from domains.protein.config import DataConfig, Source
from domains.protein.files import FORMATS, PACKED, STRUCTURES, read_chains
from domains.protein.letters import STATES, numbered
from domains.unpack import read_npz, unpacked

BUNDLE = Path(__file__).with_name("chains.npz")
STEP = 0.01  # Å
SHORTEST = 20  # residues seen; a peptide has no contacts to speak of
DATABASE = "structure_db.dat"  # of promod3-data
COLUMNS = [("seq", "u1", 1), ("xyz", "<u2", 12), ("angles", "u1", 4), ("sasa", "<u2", 1), ("depth", "<u2", 1)]
COLUMNS += [("ss8", "u1", 1), ("profile", "<i2", 20)]  # of the database
Splits = dict[str, list[Chain]]


def open_chains(config: DataConfig) -> Splits:
    """The chains that a configuration names, with their alignments.

    Raises:
        ValueError: if they are not there, or cannot be read; it says what to do.
    """
    if not (config.val_share >= 0 and config.test_share >= 0 and config.val_share + config.test_share < 1):
        raise ValueError(
            f"data.val_share={config.val_share} and data.test_share={config.test_share} must leave chains to train on"
        )
    if config.source is Source.bundled:
        splits = read_bundle(BUNDLE)
    else:
        path = _given(config)
        match config.source:
            case Source.packs:
                splits = _packs(path, config)
            case Source.promod3:
                splits = split_by_cluster(read_promod3(_database(path)), config.val_share, config.test_share)
            case Source.structures:
                splits = split_by_cluster(read_folder(path), config.val_share, config.test_share)
        splits = {split: sorted(chains, key=len) for split, chains in splits.items()}  # batches of like lengths
    if config.alignments is not None:
        splits = _aligned(splits, Path(config.alignments))
    for split, chains in splits.items():
        if not chains:
            raise ValueError(f"no chain is left for {split}; give more chains, or another data.{split}_share")
    return splits


def _given(config: DataConfig) -> Path:
    what = {
        Source.packs: "the folder of the packs: train*.npz.xz, val.npz.xz and splits.tsv",
        Source.promod3: "the package of Debian (apt-get download promod3-data), or the structure_db.dat in it",
        Source.structures: "a folder of PDB, mmCIF and BinaryCIF files (attend fetch gets some)",
    }[config.source]
    if config.path is None or not Path(config.path).exists():
        raise ValueError(f"data.path={config.path} is not there; give {what}")
    return Path(config.path)


def read_bundle(path: Path) -> Splits:
    """The chains of each split. No code in the file can run: it is read without pickle."""
    with np.load(path, allow_pickle=False) as file:
        bundle = {key: file[key] for key in file.files}
    splits: Splits = {"train": [], "val": [], "test": []}
    end = 0
    for split, name, length in zip(bundle["split"], bundle["name"], bundle["length"], strict=True):
        start, end = end, end + int(length)
        sequence = numbered(bundle["sequence"][start:end].tobytes().decode())
        steps = bundle["backbone"][:, 3 * start : 3 * end]  # (3, 3N)
        backbone = (steps.cumsum(1, dtype=np.int64).T * STEP).astype(np.float32).reshape(-1, 3, 3)  # (N, atoms, 3)
        profile = bundle["profile"][:, start:end].T / np.float32(255)
        splits[str(split)].append(Chain(str(name), sequence, profile, virtual_cb(backbone, sequence)))
    return splits


def _packs(folder: Path, config: DataConfig) -> Splits:
    """All of val.npz.xz to test on; of the others some clusters, drawn by their names, to validate on."""
    packs = sorted(folder.glob("*.npz.xz"))
    test = [path for path in packs if path.name == "val.npz.xz"]
    learn = [path for path in packs if path.name.startswith("train")]
    if not test or not learn or not (folder / "splits.tsv").is_file():
        raise ValueError(f"data.path={folder} must hold train*.npz.xz, val.npz.xz and splits.tsv")
    with open(folder / "splits.tsv", newline="") as file:
        cluster = {row["chain"]: row["cluster30"] for row in csv.DictReader(file, delimiter="\t")}
    splits = {"train": [], "val": [], "test": read_pack(test[0])}
    for chain in (chain for path in learn for chain in read_pack(path)):
        splits["val" if drawn(cluster[chain.name]) < config.val_share else "train"].append(chain)
    return splits


def read_pack(path: Path) -> list[Chain]:
    """The chains of a pack: an .npz of plain arrays, with lzma.

    names, length       one entry a chain
    seq, ss8 (R,)       letters, as bytes: of residues, and of their secondary structure by DSSP
    profile (F, R)      in 1/255
    dca (3, R)          steps from Cα to Cα, in 0.01 Å, those of a chain from its first
    rel (9, R)          N, C and O seen from Cα, in 0.01 Å
    """
    try:
        with lzma.open(path) as file:
            pack = read_npz(io.BytesIO(unpacked(file, "it")), "it")
        arrays = {key: pack[key] for key in ("names", "length", "seq", "ss8", "dca", "rel", "profile")}
    except (lzma.LZMAError, EOFError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no pack of chains, or cut short: {error}") from error
    chains, end = [], 0
    for name, length in zip(arrays["names"], arrays["length"], strict=True):
        start, end = end, end + int(length)
        ca = arrays["dca"][:, start:end].cumsum(1, dtype=np.int64).T  # (N, 3)
        n, c, _ = arrays["rel"][:, start:end].astype(int).T.reshape(-1, 3, 3).swapaxes(0, 1)
        backbone = (np.stack([ca + n, ca, ca + c], 1) * STEP).astype(np.float32)  # (N, atoms, 3)
        sequence = numbered(arrays["seq"][start:end].tobytes().decode())
        profile = arrays["profile"][:, start:end].T / np.float32(255)
        states = _states(arrays["ss8"][start:end])
        chains.append(Chain(str(name), sequence, profile, virtual_cb(backbone, sequence), states=states))
    return chains


def _states(letters: np.ndarray) -> np.ndarray:
    """DSSP's letters, as bytes (N,), as numbers in STATES; a blank, or any other, is none of the named ones."""
    return np.array([STATES.find(letter) % len(STATES) for letter in letters.tobytes().decode()], np.int64)


def read_folder(folder: Path) -> list[Chain]:
    """The protein chains of every structure in a folder and its sub-folders; copies of a sequence in one file once.

    A file that cannot be read is left out, with a warning that says which and why.

    Raises:
        ValueError: if there are no structures, or none can be read.
    """
    suffixes = tuple(suffix + packed for kind in STRUCTURES for suffix in FORMATS[kind] for packed in ("", *PACKED))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(suffixes))
    if not files:
        raise ValueError(f"data.path={folder} holds no structures ({', '.join(suffixes[::3])})")
    chains, bad = [], []
    for file in files:
        try:
            own = {chain.sequence.tobytes(): chain for chain in reversed(read_chains(file))}
        except ValueError as error:
            bad.append(error)
            continue
        chains += [chain for chain in reversed(own.values()) if seen(chain).sum() >= SHORTEST]
    if bad and not chains:
        raise ValueError(f"none of the {len(files)} structures in {folder} can be read; the first: {bad[0]}")
    if bad:
        warnings.warn(f"{len(bad)} of {len(files)} files are left out; the first: {bad[0]}", stacklevel=2)
    return chains


def _database(path: Path) -> Path:
    """structure_db.dat itself, or the one inside of a package, taken out into $ATTEND_DATA once."""
    if path.suffix != ".deb":
        return path
    home = Path(os.environ.get("ATTEND_DATA", Path.home() / ".cache" / "attend"))
    kept = home / path.stem / DATABASE
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        try:
            with open(path, "rb") as package, open(part, "wb") as out:
                _take_out(package, out)
        except (ValueError, EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
            part.unlink()
            raise ValueError(
                f"{DATABASE} cannot be taken out of {path}: it is another package, cut short, or packed in a way that "
                f"Python does not know; give the path of {DATABASE} itself (dpkg-deb -x)"
            ) from error
        part.rename(kept)
    return kept


def _take_out(package: BinaryIO, out: BinaryIO) -> None:
    """The database, from a .deb: an ar archive, in it data.tar, packed (deb(5), ar(5))."""
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
    """The chains of promod3-data's structure_db.dat. Little-endian, found by inspection and checked by bond lengths:

        77 bytes; u64 chains; of each: u32 and PDB id, u32 and chain id, u32 first residue in the arrays, u16 residues,
        u16 first number, 3 f32 shift; then eight arrays, a u64 count before each: letter, 12 u16 backbone (N, CA, C, O
        in 0.01 Å), 4 bytes, u16, u16, letter of DSSP, 20 i16 frequencies in 1/10,000, 20 i16 others

    The last of them are made from the structure itself, and are never read.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
        entries, start = _promod3_index(data)
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
        sequence = numbered(arrays["seq"][rows].tobytes().decode())
        backbone = (arrays["xyz"][rows].reshape(-1, 4, 3)[:, :3] * STEP).astype(np.float32)
        profile = (arrays["profile"][rows] / 10_000).astype(np.float32)
        states = _states(arrays["ss8"][rows])
        chains.append(Chain(name, sequence, profile, virtual_cb(backbone, sequence), states=states))
    return chains


def _promod3_index(data: np.ndarray) -> tuple[list[tuple[str, int, int]], int]:
    """(name, first residue, residues) of each chain, and where the arrays begin."""
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


def _aligned(splits: Splits, source: Path) -> Splits:
    """The chains with their alignments; those to train on that have none are left out.

    Raises:
        ValueError: if no chain to train on has one, or one is not that of its chain.
    """
    names = {chain.name for chains in splits.values() for chain in chains}
    found = {name: alignment for name, alignment in read_alignments(source) if name in names}
    for chain in (chain for chains in splits.values() for chain in chains if chain.name in found):
        if found[chain.name].rows.shape[1] != len(chain):
            raise ValueError(f"the alignment {chain.name}.a3m in {source} is not one of that chain: lengths differ")
    aligned = {split: [replace(c, alignment=found.get(c.name)) for c in chains] for split, chains in splits.items()}
    aligned["train"] = [chain for chain in aligned["train"] if chain.alignment is not None]
    if not aligned["train"]:
        raise ValueError(f"data.alignments={source} has none for a chain to train on; they are called NAME.a3m")
    return aligned


def read_alignments(source: Path) -> Iterator[tuple[str, Alignment]]:
    """(name, alignment) of every .a3m in a folder and in its .tar.xz archives, or in one archive."""
    if not source.exists():
        raise ValueError(f"data.alignments={source} is not there; give a folder of NAME.a3m, or of .tar.xz with such")
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        if path.suffix == ".a3m":
            yield path.stem, _parsed(path.read_bytes(), str(path))
        elif path.name.endswith((".tar.xz", ".tar.gz", ".tar")):
            yield from _archived(path)


def _archived(path: Path) -> Iterator[tuple[str, Alignment]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(".a3m") and (file := archive.extractfile(member)):
                    yield Path(member.name).stem, _parsed(unpacked(file, str(path)), f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
        raise ValueError(f"{path} is no archive, or cut short") from error


def _parsed(data: bytes, where: str) -> Alignment:
    try:
        return parse_a3m(data.decode())
    except ValueError as error:
        raise ValueError(f"{where} cannot be read as A3M: {error}") from error
