"""Where text comes from: documents, each a name and its text in pieces, so that no document has to fit into memory."""

import codecs
import hashlib
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from urllib.error import URLError
from urllib.request import urlopen

from domains.config import data_home
from domains.text.config import DataConfig, Source
from domains.text.tokenizers import END

PIECE = 2**20  # bytes read at once
BROKEN = re.compile(f"[\udc80-\udcff{END}]")  # bytes that are no UTF-8, as Python escapes them, and what marks an end
LAST_WORD = re.compile(r"(?<=\S)\s+\S*\Z")  # where a tokenizer begins anew whatever came before

Documents = Iterator[tuple[str, Iterator[str]]]


@dataclass
class Texts:
    """Documents to read, as often as one likes.

    Attributes:
        read: gives them, in order; counts into its argument the bytes of each that are no UTF-8.
        mark: what identifies them, for the cache; None if what is made of them is not worth keeping.
        end: what stands between two documents.
    """

    read: Callable[[Counter[str]], Documents]
    mark: str | None
    end: str = END


def open_texts(config: DataConfig) -> Texts:
    """What a configuration names.

    Raises:
        ValueError: if it is not there; it says what to do.
    """
    match config.source:
        case Source.python_docs:
            if config.path is not None:
                raise ValueError(f"data.path={config.path} is not read by data=python_docs; say data=files")
            return Texts(lambda _: ((name, iter([topics[name] + "\n"])) for name in sorted(topics)), None, end="")
        case Source.files:
            return _files(_given(config, "a text file or a folder of them"))
        case Source.url:
            return _files(_downloaded(config))
        case Source.datasets:
            return _datasets(config)


def home() -> Path:
    """Where downloads and tokenised text are kept."""
    return data_home() / "text"


def _given(config: DataConfig, what: str) -> str:
    if config.path is None:
        raise ValueError(f"data.source={config.source.value} needs data.path=…, {what}")
    return config.path


def _files(path: str | Path) -> Texts:
    """A document a file; hidden ones in a folder, and those with a zero byte near their beginning, are left out."""
    root = Path(path)
    if not root.exists():
        raise ValueError(f"data.path={path} does not exist; give a text file or a folder of them")
    found = sorted(p for p in root.rglob("*") if p.is_file() and not _hidden(p, root)) if root.is_dir() else [root]
    files = [p for p in found if not _binary(p)]
    if not files:
        raise ValueError(f"data.path={path} holds no text; give UTF-8 text, such as a novel.txt, or a folder of it")
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]

    def read(problems: Counter[str]) -> Documents:
        for file in files:
            name = str(file.relative_to(root)) if root.is_dir() else file.name
            yield name, pieces(file, name, problems)

    return Texts(read, repr(stats))


def pieces(file: Path, name: str, problems: Counter[str]) -> Iterator[str]:
    """The text of a file, cut before white space. Bytes that are no UTF-8 become � and are counted; lines end as in a
    prompt, whatever the system that wrote them."""
    utf8, rest = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape"), ""
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    with file.open("rb") as stream:
        while block := stream.read(PIECE):
            text = rest + decoder.decode(block)
            cut = LAST_WORD.search(text, max(0, len(text) - PIECE // 2))
            whole, rest = (text, "") if cut is None else (text[: cut.start()], text[cut.start() :])
            yield _mended(whole, name, problems)
    yield _mended(rest + decoder.decode(b"", final=True), name, problems)


def _mended(text: str, name: str, problems: Counter[str]) -> str:
    text, broken = BROKEN.subn("\ufffd", text)
    if broken:
        problems[name] += broken
    return text


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _binary(path: Path) -> bool:
    with path.open("rb") as stream:
        return b"\0" in stream.read(8192)


def _downloaded(config: DataConfig) -> Path:
    """The file at data.path, or that of data.url; either way with the right checksum, where one is given."""
    if config.path is None and config.url is None:
        raise ValueError("data.source=url needs data.url=…, or data.path=… for a file that is here already")
    url = config.url or ""
    kept = home() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16]  # many a file is called input.txt
    file = Path(config.path) if config.path else kept / (Path(url.rstrip("/")).name or "text")
    if not file.is_file() and config.path:
        raise ValueError(f"data.path={config.path} is no file")
    if not file.is_file():
        _fetch(url, file, config.sha256)
    found = _digest(file)
    if config.sha256 and found != config.sha256:
        hint = "give data.sha256=null if it is meant" if config.path else "remove it"
        raise ValueError(f"{file} has the SHA-256 sum {found}, and not data.sha256={config.sha256}; {hint}")
    return file


def _fetch(url: str, file: Path, sha256: str | None) -> None:
    """Download under another name first: a file that is there is whole."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"data.url={url} must begin with https:// (or http://); a file that is here is data.path=FILE")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        new = Path(folder) / file.name
        try:
            with urlopen(url, timeout=30) as stream, new.open("wb") as out:
                while block := stream.read(PIECE):
                    out.write(block)
        except (URLError, OSError, ValueError) as error:
            raise ValueError(
                f"{url} cannot be downloaded ({error}); put that file into {file.parent}, or say data.path=FILE"
            ) from error
        found = _digest(new)
        if sha256 and found != sha256:
            raise ValueError(f"{url} has the SHA-256 sum {found}, and not data.sha256={sha256}; it was not kept")
        os.replace(new, file)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _datasets(config: DataConfig) -> Texts:
    """Rows of a Hugging Face data set, its splits joined: a document a row."""
    path = _given(config, "the name of a data set, or of a loader such as json with data.files=…")
    try:
        package = import_module("datasets")
    except ModuleNotFoundError as error:
        raise ValueError("data.source=datasets needs the package datasets: pip install -e '.[datasets]'") from error
    try:
        parts = package.load_dataset(path, data_files=config.files)
    except (OSError, ValueError, ConnectionError) as error:
        raise ValueError(f"datasets cannot load {path!r} (data.files={config.files}): {error}") from error
    for split, part in parts.items():
        if config.column not in part.column_names:
            raise ValueError(f"{path} has no column {config.column!r} in {split}; possible: {part.column_names}")

    def read(problems: Counter[str]) -> Documents:
        for split, part in parts.items():
            for number, row in enumerate(part):
                text = row[config.column]
                if not isinstance(text, str):
                    raise ValueError(
                        f"{path} has no text in column {config.column!r} of row {number} of {split}, but {text!r:.40}; "
                        f"give another data.column (possible: {part.column_names}), or leave out such rows"
                    )
                yield f"{split} {number}", iter([_mended(text, split, problems)])

    return Texts(read, repr([config.column, *((split, part._fingerprint) for split, part in parts.items())]))
