"""Readers of protein files: sequences, alignments and structures."""

import gzip
import lzma
import re
import zlib
from dataclasses import replace
from pathlib import Path

from domains.archives import unpacked
from domains.files import decode_text
from domains.protein.alignment import Alignment, parse_a3m_chains, parse_stockholm
from domains.protein.chain import Chain
from domains.protein.fasta import chain_id, parse_fasta
from domains.protein.features import profile
from domains.protein.mmcif import parse_bcif, parse_cif
from domains.protein.pdb import parse_pdb
from domains.protein.read_warnings import ReadWarnings, collect_warnings

FORMATS = {
    "FASTA": (".fasta", ".fa", ".faa", ".fas"),
    "A3M": (".a3m", ".a2m"),
    "Stockholm": (".sto", ".stk", ".stockholm"),
    "PDB": (".pdb", ".ent"),
    "mmCIF": (".cif", ".mmcif"),
    "BinaryCIF": (".bcif",),
}
STRUCTURES = ("PDB", "mmCIF", "BinaryCIF")
SUFFIXES = {suffix: kind for kind, suffixes in FORMATS.items() for suffix in suffixes}
COMPRESSED = (".gz", ".xz")
POSSIBLE = ", ".join(f"{kind} ({' '.join(suffixes)})" for kind, suffixes in FORMATS.items())


def read_chains(path: Path | str, warnings: ReadWarnings | None = None) -> list[Chain]:
    """Read the protein chains of a file, under unique names that are valid file names. .gz and .xz are decompressed.

        FASTA              a chain for each record: sequence
        A3M, Stockholm     one chain, the first sequence: sequence, profile, alignment; of a complex, one for each chain
        PDB, mmCIF, BinaryCIF   each protein chain of the first model: sequence (SEQRES where there is one), Cβ, numbers

    Args:
        warnings: collects what is left out, changed or guessed; if None, it is emitted here.
    Raises:
        ValueError: what is wrong with the file, and where.
    """
    path = Path(path)
    kind, stem = _kind(path)
    data = unpacked_file(path)
    with collect_warnings(path, warnings) as own:
        try:
            return _named(_parsed(data, kind, stem, own), own)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def _parsed(data: bytes, kind: str, stem: str, warnings: ReadWarnings) -> list[Chain]:
    if kind == "BinaryCIF":
        return parse_bcif(data, stem, warnings)
    text = read_text(data, stem, warnings)
    match kind:
        case "FASTA":
            return [Chain(*record) for record in parse_fasta(text, warnings)]
        case "A3M":
            found = parse_a3m_chains(text, stem, warnings)
            names = [stem] if len(found) == 1 else [f"{stem}_{chain_id(n)}" for n in range(len(found))]
            return [_query(alignment, name) for alignment, name in zip(found, names, strict=True)]
        case "Stockholm":
            return [_query(parse_stockholm(text, warnings), stem)]
        case "PDB":
            return parse_pdb(text, stem, warnings)
        case _:
            return parse_cif(text, stem, warnings)


def read_text(data: bytes, stem: str, warnings: ReadWarnings) -> str:
    """Decode text of any encoding."""
    text, encoding = decode_text(data)
    if encoding == "latin-1":
        warnings["files that are no UTF-8, read as Latin-1"].append(stem)
    return text


def _query(alignment: Alignment, name: str) -> Chain:
    sequence = alignment.rows[0].astype("int64")
    return Chain(name, sequence, profile(alignment), None, alignment)


def _kind(path: Path) -> tuple[str, str]:
    """Return the format by a file's suffix, and the name without suffixes."""
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() in COMPRESSED else path.name
    inner = Path(stem)
    kind = SUFFIXES.get(inner.suffix.lower())
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give one of its files, or a file of many sequences")
    if not path.is_file():
        raise ValueError(f"there is no file {path}; possible: {POSSIBLE}")
    if kind is None:
        raise ValueError(f"the name of {path} does not say what it is; possible: {POSSIBLE}, and these as .gz or .xz")
    return kind, inner.stem


def unpacked_file(path: Path) -> bytes:
    """Return the decompressed bytes of a file."""
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix.lower(), open)
    try:
        with opened(path, "rb") as file:
            data = unpacked(file, str(path))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # a disk error, or permissions
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        raise ValueError(f"{path} cannot be unpacked; it is cut short, or no {path.suffix} file") from error
    if not data.strip():
        raise ValueError(f"{path} is empty")
    return data


def _named(chains: list[Chain], warnings: ReadWarnings) -> list[Chain]:
    """Return the chains under unique names that are valid file names."""
    names: dict[str, Chain] = {}
    for chain in chains:
        name = base = re.sub(r"[^A-Za-z0-9_.-]+", "_", chain.name).strip("._")[:80] or "chain"
        again = 1
        while name.lower() in names:
            again += 1
            name = f"{base}_{again}"
        if again > 1:
            warnings["chains of a name that another has, numbered"].append(name)
        names[name.lower()] = replace(chain, name=name)
    return list(names.values())
