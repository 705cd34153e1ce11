"""A text as tokens in three splits, on disk or in memory.

    $ATTEND_DATA/text/<fingerprint>/    tokens.bin      the tokens of all splits, one after another
                                        documents.npy   where each document begins
                                        corpus.json     everything else: it is written last

The fingerprint is that of the data (names, sizes and times of change), the tokenizer and the splits. The folder is
written under another name, brought to the disk, and renamed: one that is there is whole.

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
from domains.text.encoding import Findings
from domains.text.round_trip import RoundTrip
from domains.text.sources import PIECE, Texts, home, open_texts
from domains.text.tokenizers import Bytes, Characters, Tokenizer, learnt, load, read

VERSION = 3  # of what is on disk, and of how text is read
LEARN_FROM = 2**28  # bytes at most that byte pairs are learnt from
NAMED = 10_000  # documents at most whose names are kept


@runtime_checkable
class Tokens(Protocol):
    """(N,), whole numbers of which slices are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class OnDisk:
    """Tokens in a file. A slice maps that part of it and no more: the file may be larger than memory."""

    path: Path
    dtype: np.dtype

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize

    def __getitem__(self, part: slice) -> np.ndarray:
        begin, end, _ = part.indices(len(self))
        if begin >= end:
            return np.empty(0, self.dtype)
        return np.memmap(self.path, self.dtype, "r", begin * self.dtype.itemsize, (end - begin,))


@dataclass
class Corpus:
    """A text as tokens.

    Attributes:
        tokens: (N,).
        bounds: where each split begins and ends.
        documents: (P,): where each document begins; the end of the one before is its first token.
        names: of the documents, if they are not too many.
        tokenizer: what made the tokens.
        sizes: bytes of the original text in each split.
        changed: how many lines the tokenizer does not give back as they were, and of how many.
        widths: (V,): bytes of text that a token stands for.
    """

    tokens: Tokens
    bounds: dict[str, tuple[int, int]]
    documents: np.ndarray
    names: list[str]
    tokenizer: Tokenizer
    sizes: dict[str, int]
    changed: tuple[int, int]

    def __post_init__(self):
        self.widths = self.tokenizer.widths()

    def text(self, begin: int, end: int) -> str:
        """What the tokens from begin to end say."""
        return self.tokenizer.decode(self.tokens[begin:end].tolist())


def open_corpus(config: DataConfig) -> Corpus:
    """The text that a configuration names, tokenised now or earlier.

    Raises:
        ValueError: if it is not there or is empty, or its tokenizer cannot hold it.
    """
    texts = open_texts(config)
    if texts.mark is None:
        parts: list[np.ndarray] = []
        made = _tokenised(texts, config, lambda tokens: parts.append(tokens))
        _say(made)
        return _corpus(np.concatenate(parts), np.array(made.pop("documents")), made)
    folder = home() / _fingerprint(texts.mark, config)
    if not (folder / "corpus.json").is_file():
        _write(folder, texts, config)
    made = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    _say(made)
    return _corpus(OnDisk(folder / "tokens.bin", np.dtype(made["dtype"])), np.load(folder / "documents.npy"), made)


def _corpus(tokens: Tokens, documents: np.ndarray, made: dict[str, Any]) -> Corpus:
    bounds = {split: (begin, end) for split, (begin, end) in made["bounds"].items()}
    changed = (made["changed"]["lines"], made["changed"]["compared"])
    return Corpus(tokens, bounds, documents, made["names"], load(made["tokenizer"]), made["sizes"], changed)


def _say(made: dict[str, Any]) -> None:
    """Say what was guessed or changed when the text was read, now or earlier."""
    found, changed, tokenizer = made["findings"], made["changed"], load(made["tokenizer"])
    if found["latin1"]:
        warn_data(f"{len(found['latin1'])} files that are no UTF-8 were read as Latin-1 (first: {found['latin1'][0]})")
    if found["broken"]:
        shown = ", ".join(f"{name} ({count:,})" for name, count in list(found["broken"].items())[:8])
        warn_data(f"{sum(found['broken'].values()):,} bytes that are no UTF-8 were read as �: {shown}")
    if found["copies"]:
        one, other = found["copies"][0]
        warn_data(
            f"{len(found['copies'])} files say what another one does (first: {one}, as {other}): the test split may "
            "repeat what was trained on"
        )
    if changed["lines"]:
        warn_data(
            f"the tokenizer does not give back {changed['lines']:,} of {changed['compared']:,} lines as they were "
            f"(first: {changed['example']}); bits per byte are of the bytes of the original text"
        )
    if tokenizer.first or tokenizer.last:
        warn_data(
            f"the tokenizer puts {len(tokenizer.first)} tokens before and {len(tokenizer.last)} behind a prompt; "
            "documents are trained on and measured without them"
        )


def _fingerprint(mark: str, config: DataConfig) -> str:
    tokenizer: list[Any] = [config.tokenizer.value]
    if config.tokenizer is TokenizerKind.file:
        tokenizer.append(_from_file(config).spec())
    elif config.tokenizer is TokenizerKind.bpe:
        tokenizer.append(config.vocabulary)
    record = json.dumps([VERSION, mark, tokenizer, config.val, config.test])
    return hashlib.sha256(record.encode()).hexdigest()[:16]


def _write(folder: Path, texts: Texts, config: DataConfig) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with (new / "tokens.bin").open("wb") as file:
            made = _tokenised(texts, config, lambda tokens: tokens.tofile(file))
            _to_disk(file)
        with (new / "documents.npy").open("wb") as file:
            np.save(file, np.array(made.pop("documents")))
            _to_disk(file)
        with (new / "corpus.json").open("w", encoding="utf-8") as file:
            json.dump(made, file)
            _to_disk(file)
        with suppress(OSError):  # another process was first, and made the same
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _tokenised(texts: Texts, config: DataConfig, write: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    """Hand all tokens to `write`; return what else there is to know, as plain values."""
    N, alphabet, findings = _survey(texts, config)
    ends = _ends(N, config)
    tokenizer = _tokenizer(texts, config, alphabet, ends)
    kind, widths = np.min_scalar_type(tokenizer.size - 1), tokenizer.widths()
    sizes, documents, names, gained, parts = [0, 0, 0], [], [], 0, 0
    original, round_trip = [0, 0, 0], RoundTrip(tokenizer)
    for batch in _batches(_parts(texts, ends)):
        for part, tokens in zip(batch, tokenizer.encode_all([part.text for part in batch]), strict=True):
            if part.name is not None:
                documents.append(sum(sizes))
                names += [part.name] if len(documents) <= NAMED else []
            write(tokens.astype(kind))
            sizes[part.split] += len(tokens)
            size = len(part.text.encode())
            original[part.split] += size
            gained, parts = gained + int(widths[tokens].sum()) - size, parts + 1
            if config.tokenizer is TokenizerKind.file:
                round_trip.compare(part.text, part.split)
    if abs(gained) > parts:  # SentencePiece puts a space before each
        change = f" (first change: {round_trip.example})" if round_trip.example else ""
        raise ValueError(
            f"the tokens stand for {N + gained:,} bytes and the text has {N:,}{change}: bits per byte need a tokenizer "
            "that keeps the text as it is"
        )
    bounds = np.cumsum([0, *sizes]).tolist()
    return {
        "dtype": kind.name,
        "bounds": dict(zip(SPLITS, pairwise(bounds), strict=True)),
        "documents": documents,
        "names": names,
        "findings": vars(findings),
        "changed": round_trip.told(),
        "sizes": dict(zip(SPLITS, original, strict=True)),
        "tokenizer": tokenizer.spec(),
    }


def _survey(texts: Texts, config: DataConfig) -> tuple[int, set[str], Findings]:
    """Bytes of the whole text, its characters if they are asked for, and what reading it changed."""
    N, alphabet, findings = 0, set(), Findings()
    for _, piece in _pieces(texts, findings):
        N += len(piece.encode())
        if config.tokenizer is TokenizerKind.characters:
            alphabet.update(piece)
    if not N:
        raise ValueError(f"there is no text in data.path={config.path}: it is empty")
    return N, alphabet, findings


def _ends(N: int, config: DataConfig) -> list[int]:
    """Where the splits end, in bytes."""
    val, test = (int(N * part) if part < 1 else int(part) for part in (config.val, config.test))
    if min(val, test) < 0 or val + test >= N:
        raise ValueError(
            f"data.val={config.val:g} and data.test={config.test:g} leave nothing of {N:,} bytes to train on; give "
            "shares, or numbers of bytes"
        )
    return [N - test - val, N - test, N]


def _tokenizer(texts: Texts, config: DataConfig, alphabet: set[str], ends: list[int]) -> Tokenizer:
    match config.tokenizer:
        case TokenizerKind.bytes:
            return Bytes()
        case TokenizerKind.characters:
            return Characters("".join(alphabet))
        case TokenizerKind.bpe:
            known = takewhile(lambda part: part.split == 0, _parts(texts, [min(ends[0], LEARN_FROM), *ends[1:]]))
            return learnt((part.text for part in known), config.vocabulary)
        case TokenizerKind.file:
            return _from_file(config)


def _from_file(config: DataConfig) -> Tokenizer:
    if config.tokenizer_path is None:
        raise ValueError("data.tokenizer=file needs data.tokenizer_path=…: a tokenizer.json, a folder, or a run")
    return read(Path(config.tokenizer_path))


class Part(NamedTuple):
    """Some text of one split; it begins the document `name`, if it has one."""

    text: str
    split: int
    name: str | None


def _parts(texts: Texts, ends: list[int]) -> Iterator[Part]:
    """The whole text, cut where splits end: with the last character that ends within so many bytes."""
    at = split = 0
    for name, text in _pieces(texts):
        while True:
            size = len(text.encode())
            if at + size <= ends[split]:
                break
            head = text.encode()[: ends[split] - at].decode(errors="ignore")
            if head:
                yield Part(head, split, name)
                name = None
            at, split, text = at + len(head.encode()), split + 1, text[len(head) :]
        yield Part(text, split, name)
        at += size


def _pieces(texts: Texts, findings: Findings | None = None) -> Iterator[tuple[str | None, str]]:
    """The whole text in pieces; the first of a document with its name, and behind what ends the document before."""
    before = ""
    for name, document in texts.read(findings):
        yield name, before + next(document, "")
        yield from ((None, piece) for piece in document)
        before = texts.end


def _batches(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """As many parts at once as make up a piece."""
    batch, size = [], 0
    for part in parts:
        batch.append(part)
        size += len(part.text) + 1
        if size > PIECE:
            yield batch
            batch, size = [], 0
    yield batch
