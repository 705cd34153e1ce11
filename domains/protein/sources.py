"""Where chains come from. Each source gives the same thing: three splits of them.

Shapes: N residues of a chain · R residues of all chains · F = 20 amino acids
"""

import csv
import io
import lzma
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from domains.protein.alignment import Alignment, parse_a3m
from domains.protein.chain import Chain, seen, virtual_cb
from domains.protein.clusters import Splits, check_filled, check_shares, drawn, split_by_cluster
from domains.protein.config import DataConfig, Source
from domains.protein.files import FORMATS, PACKED, STRUCTURES, read_chains
from domains.protein.letters import LETTERS, numbered, numbered_states
from domains.protein.promod3 import open_database, read_promod3
from domains.unpack import read_npz, unpacked

BUNDLE = Path(__file__).with_name("chains.npz")
STEP = 0.01  # Å
SHORTEST = 20  # residues seen; a peptide has no contacts to speak of
PACK = {"seq": 1, "ss8": 1, "profile": len(LETTERS), "dca": 3, "rel": 9}  # rows of each array of a pack


def open_chains(config: DataConfig) -> Splits:
    """The chains that a configuration names, with their alignments.

    Raises:
        ValueError: if they are not there, or cannot be read; it says what to do.
    """
    check_shares(config.val_share, config.test_share)
    if config.source is Source.bundled:
        splits = read_bundle(BUNDLE)
    else:
        path = _given(config)
        match config.source:
            case Source.packs:
                splits = _packs(path, config)
            case Source.promod3:
                splits = split_by_cluster(read_promod3(open_database(path)), config.val_share, config.test_share)
            case Source.structures:
                splits = split_by_cluster(read_folder(path), config.val_share, config.test_share)
        splits = {split: sorted(chains, key=len) for split, chains in splits.items()}  # batches of like lengths
    if config.alignments is not None:
        splits = _aligned(splits, Path(config.alignments))
    check_filled(splits)
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
    learned, splits = (
        [chain for path in learn for chain in read_pack(path)],
        {"train": [], "val": [], "test": read_pack(test[0])},
    )
    cluster = read_clusters(folder / "splits.tsv", [chain.name for chain in learned])
    for chain in learned:
        splits["val" if drawn(cluster[chain.name]) < config.val_share else "train"].append(chain)
    return splits


def read_clusters(path: Path, names: Iterable[str]) -> dict[str, str]:
    """The cluster of each chain at 30 % identity, from the columns chain and cluster30 of a splits.tsv.

    Raises:
        ValueError: if it is no such table, or one of these names is not in it.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        cluster = {row["chain"]: row["cluster30"] for row in rows if row["cluster30"]}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table with the columns chain and cluster30, separated by tabs: {error}"
        ) from error
    if missing := sorted(set(names) - set(cluster)):
        raise ValueError(
            f"{path} names no cluster of {missing[0]}; give a line to each of the {len(missing)} chains without"
        )
    return cluster


class Packed(NamedTuple):
    """A chain as a pack has it."""

    name: str
    letters: np.ndarray  # (N,), bytes
    states: np.ndarray  # (N,), bytes
    profile: np.ndarray  # (N, F), in 1/255
    backbone: np.ndarray  # (N, atoms, 3): N, CA and C in 0.01 Å


def read_pack(path: Path) -> list[Chain]:
    """The chains of a pack.

    Raises:
        ValueError: if it is none, or cut short.
    """
    chains = []
    for name, letters, states, profile, backbone in pack_arrays(path):
        sequence = numbered(letters.tobytes().decode("latin-1"))
        cb = virtual_cb((backbone * STEP).astype(np.float32), sequence)
        chains.append(Chain(name, sequence, profile / np.float32(255), cb, states=numbered_states(states)))
    return chains


def pack_arrays(path: Path) -> Iterator[Packed]:
    """The chains of a pack as they are in it: an .npz of plain arrays, with lzma.

    names, length       one entry a chain
    seq, ss8 (R,)       letters, as bytes: of residues, and of their secondary structure by DSSP
    profile (F, R)      in 1/255
    dca (3, R)          steps from Cα to Cα, in 0.01 Å, those of a chain from its first
    rel (9, R)          N, C and O seen from Cα, in 0.01 Å

    Raises:
        ValueError: if it is none, or cut short.
    """
    try:
        with lzma.open(path) as file:
            pack = read_npz(io.BytesIO(unpacked(file, "it")), "it")
        names, length = pack["names"], pack["length"]
        pack |= {key: pack[key].view(np.uint8) for key in ("seq", "ss8")}
        if length.dtype.kind not in "iu" or length.shape != names.shape or length.ndim != 1 or (length < 1).any():
            raise ValueError("names and length must have an entry for each chain")
        residues = int(length.sum())
        for key, rows in PACK.items():
            shape = (residues,) if rows == 1 else (rows, residues)
            if pack[key].shape != shape or pack[key].dtype.kind not in "iu":
                raise ValueError(f"{key} must be whole numbers of shape {shape}, and has {pack[key].shape}")
    except (lzma.LZMAError, EOFError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no pack of chains, or cut short: {error}") from error
    end = 0
    for name, size in zip(names, length, strict=True):
        start, end = end, end + int(size)
        ca = pack["dca"][:, start:end].cumsum(1, dtype=np.int64).T  # (N, 3)
        n, c, _ = pack["rel"][:, start:end].astype(int).T.reshape(-1, 3, 3).swapaxes(0, 1)
        backbone = np.stack([ca + n, ca, ca + c], 1)
        yield Packed(
            str(name), pack["seq"][start:end], pack["ss8"][start:end], pack["profile"][:, start:end].T, backbone
        )


def read_folder(folder: Path) -> list[Chain]:
    """The protein chains of every structure in a folder and its sub-folders; copies of a sequence in one file once.

    A file that cannot be read is left out, with a warning that says which and why; so is, without one, a chain of which
    fewer than 20 residues were seen.

    Raises:
        ValueError: if there are no structures, none can be read, or all their chains are so short.
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
    if not chains:
        raise ValueError(f"data.path={folder} has no chain with at least {SHORTEST} residues seen; give longer ones")
    return chains


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
