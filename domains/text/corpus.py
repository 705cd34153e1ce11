"""A text as tokens in three splits, on disk or in memory.

    $ATTEND_DATA/text/<fingerprint>/    tokens.bin           the tokens of all splits, one after another
                                        document_starts.npy  where each document begins
                                        corpus.json          everything else; written last

The fingerprint is that of the data (names, sizes and times of change), the tokenizer and the splits. The folder is
written under another name, flushed to disk, and renamed: an existing one is complete.

Shapes: N tokens · P documents
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from domains.data import SPLITS
from domains.data_warnings import warn_data
from domains.text.config import DataConfig, TokenizerKind
from domains.text.encoding import ReadReport
from domains.text.round_trip import RoundTrip
from domains.text.sources import CHUNK_SIZE, DocumentSource, cache_dir, open_documents
from domains.text.tokenizers import Bytes, Characters, Tokenizer, load_tokenizer, read_tokenizer, train_bpe

VERSION = 4  # of the files on disk, and of how text is read
MAX_BPE_TRAINING_BYTES = 2**28  # the text that byte pairs are trained on, at most
MAX_DOCUMENT_NAMES = 10_000  # names are kept for no more documents


@runtime_checkable
class Tokens(Protocol):
    """(N,), integers that are read in slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class MemmapTokens:
    """Tokens in a file. A slice maps that part and no more: the file may be larger than memory."""

    path: Path
    dtype: np.dtype

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def __getitem__(self, index: slice) -> np.ndarray:
        begin, end, _ = index.indices(len(self))
        if begin >= end:
            return np.empty(0, self.dtype)
        return np.memmap(self.path, self.dtype, "r", begin * self.dtype.itemsize, (end - begin,))


@dataclass
class Corpus:
    """A text as tokens.

    Attributes:
        tokens: (N,).
        bounds: where each split begins and ends.
        document_starts: (P,): where each document begins; the end of the one before is its first token.
        document_names: of the documents, if they are not too many.
        tokenizer: the one that made the tokens.
        split_bytes: bytes of the original text in each split.
        changed_lines: how many lines the tokenizer changes, and of how many.
        bytes_per_token: (V,): bytes of text that each token stands for.
    """

    tokens: Tokens
    bounds: dict[str, tuple[int, int]]
    document_starts: np.ndarray
    document_names: list[str]
    tokenizer: Tokenizer
    split_bytes: dict[str, int]
    changed_lines: tuple[int, int]

    def __post_init__(self):
        self.bytes_per_token = self.tokenizer.bytes_per_token()

    def text(self, begin: int, end: int) -> str:
        """Return the tokens from begin to end as text."""
        return self.tokenizer.decode(self.tokens[begin:end].tolist())


def open_corpus(config: DataConfig) -> Corpus:
    """Return the text that a configuration names, tokenized now or earlier.

    Raises:
        ValueError: if it does not exist or is empty, or its tokenizer cannot encode it.
    """
    source = open_documents(config)
    if source.fingerprint is None:
        chunks: list[np.ndarray] = []
        record = _tokenize(source, config, lambda tokens: chunks.append(tokens))
        _warn(record)
        return _corpus(np.concatenate(chunks), np.array(record.pop("document_starts")), record)
    folder = cache_dir() / _fingerprint(source.fingerprint, config)
    if not (folder / "corpus.json").is_file():
        _write_cache(folder, source, config)
    record = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    _warn(record)
    return _corpus(
        MemmapTokens(folder / "tokens.bin", np.dtype(record["dtype"])), np.load(folder / "document_starts.npy"), record
    )


def _corpus(tokens: Tokens, documents: np.ndarray, record: dict[str, Any]) -> Corpus:
    bounds = {split: (begin, end) for split, (begin, end) in record["bounds"].items()}
    changed = (record["changed_lines"]["lines"], record["changed_lines"]["compared"])
    return Corpus(
        tokens,
        bounds,
        documents,
        record["document_names"],
        load_tokenizer(record["tokenizer"]),
        record["split_bytes"],
        changed,
    )


def _warn(record: dict[str, Any]) -> None:
    """Warn of guesses and changes that were made when the text was read, now or earlier."""
    found, changed, tokenizer = record["read_report"], record["changed_lines"], load_tokenizer(record["tokenizer"])
    if found["latin1_files"]:
        first = found["latin1_files"][0]
        warn_data(f"{len(found['latin1_files'])} files that are no UTF-8 were read as Latin-1 (first: {first})")
    if found["replaced_bytes"]:
        shown = ", ".join(f"{name} ({count:,})" for name, count in list(found["replaced_bytes"].items())[:8])
        warn_data(f"{sum(found['replaced_bytes'].values()):,} bytes that are no UTF-8 were read as �: {shown}")
    if found["duplicates"]:
        one, other = found["duplicates"][0]
        warn_data(
            f"{len(found['duplicates'])} files say what another one does (first: {one}, as {other}): the test split "
            "may repeat what was trained on"
        )
    if changed["lines"]:
        warn_data(
            f"the tokenizer does not give back {changed['lines']:,} of {changed['compared']:,} lines as they were "
            f"(first: {changed['example']}); bits per byte are of the bytes of the original text"
        )
    if tokenizer.prompt_prefix or tokenizer.prompt_suffix:
        warn_data(
            f"the tokenizer puts {len(tokenizer.prompt_prefix)} tokens before and {len(tokenizer.prompt_suffix)} "
            "behind a prompt; documents are trained on and measured without them"
        )


def _fingerprint(fingerprint: str, config: DataConfig) -> str:
    tokenizer: list[Any] = [config.tokenizer.value]
    if config.tokenizer is TokenizerKind.file:
        tokenizer.append(_from_file(config).spec())
    elif config.tokenizer is TokenizerKind.bpe:
        tokenizer.append(config.vocab_size)
    record = json.dumps([VERSION, fingerprint, tokenizer, config.val, config.test])
    return hashlib.sha256(record.encode()).hexdigest()[:16]


def _write_cache(folder: Path, source: DocumentSource, config: DataConfig) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with (new / "tokens.bin").open("wb") as file:
            record = _tokenize(source, config, lambda tokens: tokens.tofile(file))
            _fsync(file)
        with (new / "document_starts.npy").open("wb") as file:
            np.save(file, np.array(record.pop("document_starts")))
            _fsync(file)
        with (new / "corpus.json").open("w", encoding="utf-8") as file:
            json.dump(record, file)
            _fsync(file)
        with suppress(OSError):  # another process was first, and made the same
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fsync(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _tokenize(source: DocumentSource, config: DataConfig, write: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """Pass all tokens to `write`; return the rest of the corpus as plain values."""
    N, alphabet, report = _scan(source, config)
    ends = _split_ends(N, config)
    tokenizer = _tokenizer(source, config, alphabet, ends)
    kind, bytes_per_token = np.min_scalar_type(tokenizer.vocab_size - 1), tokenizer.bytes_per_token()
    sizes, documents, names, gained, chunks = [0, 0, 0], [], [], 0, 0
    original, round_trip = [0, 0, 0], RoundTrip(tokenizer)
    for batch in _batches(_split_chunks(source, ends)):
        for chunk, tokens in zip(batch, tokenizer.encode_batch([chunk.text for chunk in batch]), strict=True):
            if chunk.name is not None:
                documents.append(sum(sizes))
                names += [chunk.name] if len(documents) <= MAX_DOCUMENT_NAMES else []
            write(tokens.astype(kind))
            sizes[chunk.split] += len(tokens)
            size = len(chunk.text.encode())
            original[chunk.split] += size
            gained, chunks = gained + int(bytes_per_token[tokens].sum()) - size, chunks + 1
            if config.tokenizer is TokenizerKind.file:
                round_trip.compare(chunk.text, chunk.split)
    if abs(gained) > chunks:  # SentencePiece puts a space before each
        change = f" (first change: {round_trip.example})" if round_trip.example else ""
        raise ValueError(
            f"the tokens stand for {N + gained:,} bytes and the text has {N:,}{change}: bits per byte need a tokenizer "
            "that keeps the text as it is"
        )
    bounds = np.cumsum([0, *sizes]).tolist()
    return {
        "dtype": kind.name,
        "bounds": dict(zip(SPLITS, pairwise(bounds), strict=True)),
        "document_starts": documents,
        "document_names": names,
        "read_report": vars(report),
        "changed_lines": round_trip.summary(),
        "split_bytes": dict(zip(SPLITS, original, strict=True)),
        "tokenizer": tokenizer.spec(),
    }


def _scan(source: DocumentSource, config: DataConfig) -> tuple[int, set[str], ReadReport]:
    """Return the bytes of the whole text, its characters if the tokenizer needs them, and the changes of reading it."""
    N, alphabet, report = 0, set(), ReadReport()
    for _, piece in _read_chunks(source, report):
        N += len(piece.encode())
        if config.tokenizer is TokenizerKind.characters:
            alphabet.update(piece)
    if not N:
        raise ValueError(f"there is no text in data.path={config.path}: it is empty")
    return N, alphabet, report


def _split_ends(N: int, config: DataConfig) -> list[int]:
    """Return where the splits end, in bytes."""
    val, test = (int(N * part) if part < 1 else int(part) for part in (config.val, config.test))
    if min(val, test) < 0 or val + test >= N:
        raise ValueError(
            f"data.val={config.val:g} and data.test={config.test:g} leave nothing of {N:,} bytes to train on; give "
            "shares, or numbers of bytes"
        )
    return [N - test - val, N - test, N]


def _tokenizer(source: DocumentSource, config: DataConfig, alphabet: set[str], ends: list[int]) -> Tokenizer:
    match config.tokenizer:
        case TokenizerKind.bytes:
            return Bytes()
        case TokenizerKind.characters:
            return Characters("".join(alphabet))
        case TokenizerKind.bpe:
            training = takewhile(
                lambda chunk: chunk.split == 0, _split_chunks(source, [min(ends[0], MAX_BPE_TRAINING_BYTES), *ends[1:]])
            )
            return train_bpe((chunk.text for chunk in training), config.vocab_size)
        case TokenizerKind.file:
            return _from_file(config)


def _from_file(config: DataConfig) -> Tokenizer:
    if config.tokenizer_path is None:
        raise ValueError("data.tokenizer=file needs data.tokenizer_path=…: a tokenizer.json, a folder, or a run")
    return read_tokenizer(Path(config.tokenizer_path))


class TextChunk(NamedTuple):
    """Some text of one split; it begins the document `name`, if it has one."""

    text: str
    split: int
    name: str | None


def _split_chunks(source: DocumentSource, ends: list[int]) -> Iterator[TextChunk]:
    """Yield the whole text, cut where splits end: after the last character that ends within so many bytes."""
    at = split = 0
    for name, text in _read_chunks(source):
        while True:
            size = len(text.encode())
            if at + size <= ends[split]:
                break
            head = text.encode()[: ends[split] - at].decode(errors="ignore")
            if head:
                yield TextChunk(head, split, name)
                name = None
            at, split, text = at + len(head.encode()), split + 1, text[len(head) :]
        yield TextChunk(text, split, name)
        at += size


def _read_chunks(source: DocumentSource, report: ReadReport | None = None) -> Iterator[tuple[str | None, str]]:
    """Yield the text in chunks; the first of a document with its name, and behind the separator from the document
    before."""
    before = ""
    for name, document in source.read(report):
        yield name, before + next(document, "")
        yield from ((None, piece) for piece in document)
        before = source.separator


def _batches(chunks: Iterator[TextChunk]) -> Iterator[list[TextChunk]]:
    """Yield as many chunks together as have CHUNK_SIZE characters."""
    batch, size = [], 0
    for chunk in chunks:
        batch.append(chunk)
        size += len(chunk.text) + 1
        if size > CHUNK_SIZE:
            yield batch
            batch, size = [], 0
    yield batch
