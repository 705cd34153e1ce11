"""Sources of chains. Each returns three splits.

Shapes: N residues of a chain · R residues of all chains · F = 20 amino acids
"""

import csv
import io
import lzma
import tarfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from domains.archives import read_npz, unpacked
from domains.data_warnings import warn_data, warn_left_out
from domains.files import decode_text, walk_files
from domains.protein.alignment import Alignment, parse_a3m_chains
from domains.protein.alphabet import AMINO_ACIDS, UNKNOWN, encode_residues, encode_ss8
from domains.protein.chain import Chain, resolved_mask, virtual_cb
from domains.protein.clusters import Splits, check_filled, check_shares, hash_fraction, split_by_cluster
from domains.protein.config import DataConfig, Source
from domains.protein.files import COMPRESSED, FORMATS, STRUCTURES, read_chains, read_text, unpacked_file
from domains.protein.promod3 import open_database, read_promod3
from domains.protein.read_warnings import ReadWarnings, collect_warnings

BUNDLE = Path(__file__).with_name("chains.npz")
STEP = 0.01  # Å
MIN_RESIDUES = 20  # resolved residues; shorter peptides have hardly any contacts
SUFFIXES = tuple(suffix + packed for kind in STRUCTURES for suffix in FORMATS[kind] for packed in ("", *COMPRESSED))
ARCHIVES = (".tar.xz", ".tar.gz", ".tar")
NO_A3M = "links, and files that are no .a3m, left out"
MAX_MISMATCH = 0.1  # share of residues in which an alignment's query may differ from its chain
PACK = {"seq": 1, "ss8": 1, "profile": len(AMINO_ACIDS), "dca": 3, "rel": 9}  # rows of each array of a pack


def load_splits(config: DataConfig) -> Splits:
    """Load the chains of a configuration, with their alignments.

    Raises:
        ValueError: if they do not exist or cannot be read; the message says what to do.
    """
    check_shares(config.val_share, config.test_share)
    if config.source is Source.bundled:
        splits = read_bundle(BUNDLE)
    else:
        path = _data_path(config)
        match config.source:
            case Source.packs:
                splits = _packs(path, config)
            case Source.promod3:
                splits = split_by_cluster(read_promod3(open_database(path)), config.val_share, config.test_share)
            case Source.structures:
                splits = split_by_cluster(read_folder(path), config.val_share, config.test_share)
        splits = {split: sorted(chains, key=len) for split, chains in splits.items()}  # batches of similar lengths
    if config.alignments is not None:
        splits = _aligned(splits, Path(config.alignments))
    check_filled(splits)
    return splits


def _data_path(config: DataConfig) -> Path:
    what = {
        Source.packs: "the folder of the packs: train*.npz.xz, val.npz.xz and splits.tsv",
        Source.promod3: "the package of Debian (apt-get download promod3-data), or the structure_db.dat in it",
        Source.structures: "a folder of PDB, mmCIF and BinaryCIF files (attend fetch gets some)",
    }[config.source]
    if config.path is None or not Path(config.path).exists():
        raise ValueError(f"data.path={config.path} is not there; give {what}")
    return Path(config.path)


def read_bundle(path: Path) -> Splits:
    """Read the chains of each split, without pickle."""
    with np.load(path, allow_pickle=False) as file:
        bundle = {key: file[key] for key in file.files}
    splits: Splits = {"train": [], "val": [], "test": []}
    end = 0
    for split, name, length in zip(bundle["split"], bundle["name"], bundle["length"], strict=True):
        start, end = end, end + int(length)
        sequence = encode_residues(bundle["sequence"][start:end].tobytes().decode())
        steps = bundle["backbone"][:, 3 * start : 3 * end]  # (3, 3N)
        backbone = (steps.cumsum(1, dtype=np.int64).T * STEP).astype(np.float32).reshape(-1, 3, 3)  # (N, atoms, 3)
        profile = bundle["profile"][:, start:end].T / np.float32(255)
        splits[str(split)].append(Chain(str(name), sequence, profile, virtual_cb(backbone, sequence)))
    return splits


def _packs(folder: Path, config: DataConfig) -> Splits:
    """Read the packs: val.npz.xz is the test split; of the others some clusters, by hash, are for validation."""
    packs = sorted(folder.glob("*.npz.xz"))
    test = [path for path in packs if path.name == "val.npz.xz"]
    learn = [path for path in packs if path.name.startswith("train")]
    if not test or not learn or not (folder / "splits.tsv").is_file():
        raise ValueError(f"data.path={folder} must hold train*.npz.xz, val.npz.xz and splits.tsv")
    others = [path.name for path in packs if path not in learn and path not in test]
    warn_left_out(len(packs), {"neither train* nor val": others}, folder, "packs")
    learned, splits = (
        [chain for path in learn for chain in read_pack(path)],
        {"train": [], "val": [], "test": read_pack(test[0])},
    )
    cluster = read_clusters(folder / "splits.tsv", [chain.name for chain in learned])
    for chain in learned:
        splits["val" if hash_fraction(cluster[chain.name]) < config.val_share else "train"].append(chain)
    known = {cluster[chain.name] for chain in learned}
    if leaked := [chain.name for chain in splits["test"] if cluster.get(chain.name) in known]:
        warn_data(
            f"{len(leaked)} of {len(splits['test'])} test chains in {folder} (first: {leaked[0]}) are in a cluster of"
            " others to train or validate on, so that scores may be too good"
        )
    return splits


def read_clusters(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Read the cluster of each chain at 30 % identity, from the columns chain and cluster30 of a splits.tsv.

    Raises:
        ValueError: for another table, or if a name is missing.
    """
    try:
        rows = list(csv.DictReader(decode_text(path.read_bytes())[0].split("\n"), delimiter="\t"))
        cluster = {row["chain"]: row["cluster30"] for row in rows if row["cluster30"]}
    except (KeyError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table with the columns chain and cluster30, separated by tabs: {error}"
        ) from error
    if missing := sorted(set(names) - set(cluster)):
        raise ValueError(
            f"{path} names no cluster of {missing[0]}; give a line to each of the {len(missing)} chains without"
        )
    return cluster


class PackChain(NamedTuple):
    """The arrays of a chain in a pack."""

    name: str
    letters: np.ndarray  # (N,), bytes
    ss8: np.ndarray  # (N,), bytes
    profile: np.ndarray  # (N, F), in 1/255
    backbone: np.ndarray  # (N, atoms, 3): N, CA and C in 0.01 Å


def read_pack(path: Path) -> list[Chain]:
    """Read the chains of a pack.

    Raises:
        ValueError: if it is not a pack, or truncated.
    """
    chains = []
    for name, letters, ss8, profile, backbone in pack_arrays(path):
        sequence = encode_residues(letters.tobytes().decode("latin-1"))
        cb = virtual_cb((backbone * STEP).astype(np.float32), sequence)
        chains.append(Chain(name, sequence, profile / np.float32(255), cb, ss8=encode_ss8(ss8)))
    return chains


def pack_arrays(path: Path) -> Iterator[PackChain]:
    """Yield the arrays of the chains of a pack: an .npz of plain arrays, compressed with lzma.

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
        yield PackChain(
            str(name), pack["seq"][start:end], pack["ss8"][start:end], pack["profile"][:, start:end].T, backbone
        )


def read_folder(folder: Path) -> list[Chain]:
    """Read the protein chains of all structures in a folder and its sub-folders; each distinct sequence of a file once.

    Warns about what is left out: files that cannot be read or have another suffix, chains with fewer than 20 resolved
    residues, and copies.

    Raises:
        ValueError: if there are no structures, none can be read, or all their chains are so short.
    """
    everything, warnings = walk_files(folder), ReadWarnings()
    files = [path for path in everything if path.name.lower().endswith(SUFFIXES)]
    if not files:
        raise ValueError(f"data.path={folder} holds no structures ({', '.join(SUFFIXES[:: 1 + len(COMPRESSED)])})")
    chains, bad, short, copies = [], [], [], []
    for file in files:
        own: dict[bytes, Chain] = {}
        try:
            found = read_chains(file, warnings)
        except ValueError as error:
            bad.append(error)
            continue
        for chain in found:
            if resolved_mask(chain).sum() < MIN_RESIDUES:
                short.append(chain.name)
            elif own.setdefault(chain.sequence.tobytes(), chain) is not chain:
                copies.append(chain.name)
        chains += own.values()
    if len(bad) == len(files):
        raise ValueError(f"none of the {len(files)} structures in {folder} can be read; the first: {bad[0]}")
    if not chains:
        raise ValueError(
            f"data.path={folder} has no chain with at least {MIN_RESIDUES} residues seen; give longer ones"
        )
    others = [path.name for path in everything if path not in {*files}]
    reasons = {"that cannot be read": bad, f"that are no structures ({', '.join(_suffixes(others))})": others}
    warn_left_out(len(everything), reasons, folder)
    reasons = {
        f"with fewer than {MIN_RESIDUES} residues seen": short,
        "that are copies of another in their file": copies,
    }
    warn_left_out(len(chains) + len(short) + len(copies), reasons, folder, "chains")
    warnings.emit(folder)
    return chains


def _suffixes(names: Iterable[str]) -> list[str]:
    """Return the most common suffixes of these names, at most five."""
    return [suffix for suffix, _ in Counter(Path(name).suffix or "no suffix" for name in names).most_common(5)]


def _aligned(splits: Splits, source: Path) -> Splits:
    """Return the chains with their alignments; training chains without one are left out.

    Raises:
        ValueError: if no training chain has an alignment, or one does not fit its chain.
    """
    every, warnings = [chain for chains in splits.values() for chain in chains], ReadWarnings()
    found = alignments_of({chain.name for chain in every}, source, warnings)
    for chain in every:
        if chain.name in found:
            _check_query(chain, found[chain.name], source, warnings)
    aligned = {split: [replace(c, alignment=found.get(c.name)) for c in chains] for split, chains in splits.items()}
    without = [chain.name for chain in aligned["train"] if chain.alignment is None]
    aligned["train"] = [chain for chain in aligned["train"] if chain.alignment is not None]
    if not aligned["train"]:
        raise ValueError(f"data.alignments={source} has none for a chain to train on; they are called NAME.a3m")
    warn_left_out(len(splits["train"]), {"without an alignment": without}, source, "chains to train on")
    warnings["chains to validate or test on without an alignment, kept"] += [
        chain.name for split, chains in aligned.items() for chain in chains if chain.alignment is None
    ]
    warnings.emit(source)
    return aligned


def _check_query(chain: Chain, alignment: Alignment, source: Path, warnings: ReadWarnings) -> None:
    query = alignment.rows[0]
    differ = len(query) - len(chain)
    if not differ:
        known = (query != UNKNOWN) & (chain.sequence != UNKNOWN)
        differ = int((known & (query != chain.sequence)).sum())
        if differ <= 1 + MAX_MISMATCH * len(chain):
            warnings["alignments whose query differs from the chain in some residues"] += [chain.name] * bool(differ)
            return
    why = "lengths differ" if len(query) != len(chain) else f"{differ} of {len(chain)} residues differ"
    raise ValueError(f"the alignment {chain.name}.a3m in {source} is not one of that chain: {why}")


def alignments_of(names: Container[str], source: Path, warnings: ReadWarnings) -> dict[str, Alignment]:
    """Return the alignment of each named chain, the first if there are several; the others are counted."""
    found: dict[str, Alignment] = {}
    for name, alignment in read_alignments(source, warnings):
        if name not in names:
            warnings["alignments of no chain that is here, left out"].append(name)
        elif found.setdefault(name, alignment) is not alignment:
            warnings["second alignments of a chain, left out"].append(name)
    return found


def read_alignments(source: Path, warnings: ReadWarnings | None = None) -> Iterator[tuple[str, Alignment]]:
    """Yield (name, alignment) of every .a3m in a folder and its .tar.xz archives, or in one archive.

    Args:
        warnings: collects what is left out, changed or guessed; if None, it is emitted here.
    """
    if not source.exists():
        raise ValueError(f"data.alignments={source} is not there; give a folder of NAME.a3m, or of .tar.xz with such")
    with collect_warnings(source, warnings) as own:
        for path in walk_files(source) if source.is_dir() else [source]:
            name = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path.name
            if path.name.endswith(ARCHIVES):
                yield from _archived(path, own)
            elif name.endswith(".a3m"):
                yield name.removesuffix(".a3m"), _parsed(unpacked_file(path), str(path), own)
            else:
                own[NO_A3M].append(path.name)


def _archived(path: Path, warnings: ReadWarnings) -> Iterator[tuple[str, Alignment]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isreg() and member.name.endswith(".a3m") and (file := archive.extractfile(member)):
                    name = Path(member.name).stem
                    yield name, _parsed(unpacked(file, str(path)), f"{path}: {member.name}", warnings)
                elif not member.isdir():
                    warnings[NO_A3M].append(member.name)
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
        raise ValueError(f"{path} is no archive, or cut short") from error


def _parsed(data: bytes, where: str, warnings: ReadWarnings) -> Alignment:
    try:
        alignments = parse_a3m_chains(read_text(data, where, warnings), where, warnings)
    except ValueError as error:
        raise ValueError(f"{where} cannot be read as A3M: {error}") from error
    if len(alignments) > 1:
        raise ValueError(f"{where} is an alignment of {len(alignments)} chains; give one of a single chain")
    return alignments[0]
