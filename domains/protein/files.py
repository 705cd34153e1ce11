"""The one front door to files of protein: sequences, alignments and structures."""

import gzip
import lzma
import re
import zlib
from dataclasses import replace
from io import StringIO
from pathlib import Path

from Bio import SeqIO

from domains.protein.alignment import Alignment, parse_a3m, parse_stockholm
from domains.protein.chain import Chain
from domains.protein.features import profile
from domains.protein.letters import AMBIGUOUS, LETTERS, numbered
from domains.protein.structures import parse_bcif, parse_cif, parse_pdb
from domains.unpack import unpacked

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
PACKED = (".gz", ".xz")
POSSIBLE = ", ".join(f"{kind} ({' '.join(suffixes)})" for kind, suffixes in FORMATS.items())


def read_chains(path: Path | str) -> list[Chain]:
    """The protein chains of a file, under names that are fit for files and differ. .gz and .xz are unpacked.

        FASTA              a chain for each record: sequence
        A3M, Stockholm     one chain, the first sequence: sequence, profile, alignment
        PDB, mmCIF, BinaryCIF   each protein chain of the first model: sequence (SEQRES where there is one), Cβ, numbers

    Raises:
        ValueError: what is wrong with the file, and where.
    """
    path = Path(path)
    kind, stem = _kind(path)
    data = _unpacked(path)
    try:
        if kind == "BinaryCIF":
            return _named(parse_bcif(data, stem))
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ValueError("it is no text") from error
        match kind:
            case "FASTA":
                chains = parse_fasta(text)
            case "A3M" | "Stockholm":
                chains = [_first(parse_a3m(text) if kind == "A3M" else parse_stockholm(text), stem)]
            case "PDB":
                chains = parse_pdb(text, stem)
            case _:
                chains = parse_cif(text, stem)
        return _named(chains)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def parse_fasta(text: str) -> list[Chain]:
    """The records of a FASTA file.

    Raises:
        ValueError: what is wrong with it, and where.
    """
    try:
        records = list(SeqIO.parse(StringIO(text), "fasta"))
    except ValueError as error:  # text before the first >
        raise ValueError("it holds no line >name, followed by a sequence") from error
    if not records:
        raise ValueError("it holds no sequence; lines >name are each followed by one")
    chains = []
    for record in records:
        letters = str(record.seq).upper().removesuffix("*")  # a translated stop
        if not letters:
            raise ValueError(f"record {record.id!r} is empty")
        if wrong := sorted(set(letters) - set(LETTERS + AMBIGUOUS)):
            raise ValueError(
                f"record {record.id!r}: {wrong[0]!r} at position {letters.index(wrong[0]) + 1} is no amino acid; "
                f"possible: {LETTERS}, and {AMBIGUOUS} for unknown ones"
            )
        chains.append(Chain(record.id, numbered(letters)))
    return chains


def _first(alignment: Alignment, name: str) -> Chain:
    sequence = alignment.rows[0].astype("int64")
    return Chain(name, sequence, profile(alignment), None, alignment)


def _kind(path: Path) -> tuple[str, str]:
    """The format that a file's name says it has, and the name without it."""
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() in PACKED else path.name
    inner = Path(stem)
    kind = SUFFIXES.get(inner.suffix.lower())
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give one of its files, or a file of many sequences")
    if not path.is_file():
        raise ValueError(f"there is no file {path}; possible: {POSSIBLE}")
    if kind is None:
        raise ValueError(f"the name of {path} does not say what it is; possible: {POSSIBLE}, and these as .gz or .xz")
    return kind, inner.stem


def _unpacked(path: Path) -> bytes:
    opened = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix.lower(), open)
    try:
        with opened(path, "rb") as file:
            data = unpacked(file, str(path))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # it is the disk's, or the rights'
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        raise ValueError(f"{path} cannot be unpacked; it is cut short, or no {path.suffix} file") from error
    if not data.strip():
        raise ValueError(f"{path} is empty")
    return data


def _named(chains: list[Chain]) -> list[Chain]:
    """The same chains, under names that are fit for files and differ."""
    names: dict[str, Chain] = {}
    for chain in chains:
        name = base = re.sub(r"[^A-Za-z0-9_.-]+", "_", chain.name).strip("._")[:80] or "chain"
        again = 1
        while name.lower() in names:
            again += 1
            name = f"{base}_{again}"
        names[name.lower()] = replace(chain, name=name)
    return list(names.values())
