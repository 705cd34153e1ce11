"""Sources of text: documents, each a name and its text in chunks, so that no document has to fit into memory."""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from urllib.error import URLError
from urllib.request import urlopen

from domains.config import data_home
from domains.data_warnings import warn_left_out
from domains.files import walk_files
from domains.text.config import DataConfig, Source
from domains.text.encoding import (
    CHUNK_SIZE,
    ReadReport,
    detect_encoding,
    find_duplicates,
    read_chunks,
    reason_not_text,
    replace_undecodable,
)
from domains.text.tokenizers import DOCUMENT_SEPARATOR

Documents = Iterator[tuple[str, Iterator[str]]]


@dataclass
class DocumentSource:
    """Documents that can be read again and again.

    Attributes:
        read: yields them in order; records in its argument, if there is one, what it changed or guessed.
        fingerprint: identifies them, for the cache; None if the tokens are not worth caching.
        separator: between two documents.
    """

    read: Callable[[ReadReport | None], Documents]
    fingerprint: str | None
    separator: str = DOCUMENT_SEPARATOR


def open_documents(config: DataConfig) -> DocumentSource:
    """Return the source that a configuration names.

    Raises:
        ValueError: if it does not exist; it says what to do.
    """
    match config.source:
        case Source.python_docs:
            if config.path is not None:
                raise ValueError(f"data.path={config.path} is not read by data=python_docs; say data=files")
            return DocumentSource(
                lambda _: ((name, iter([topics[name] + "\n"])) for name in sorted(topics)), None, separator=""
            )
        case Source.files:
            return _from_files(_required_path(config, "a text file or a folder of them"))
        case Source.url:
            return _from_files(_download(config))
        case Source.datasets:
            return _from_datasets(config)


def cache_dir() -> Path:
    """Return the folder of downloads and tokenized text."""
    return data_home() / "text"


def _required_path(config: DataConfig, what: str) -> str:
    if config.path is None:
        raise ValueError(f"data.source={config.source.value} needs data.path=…, {what}")
    return config.path


def _from_files(path: str | Path) -> DocumentSource:
    """Return the files as documents; warn of files in a folder that are not text."""
    root = Path(path)
    if not root.exists():
        raise ValueError(f"data.path={path} does not exist; give a text file or a folder of them")
    files = _text_files(root)
    names = [str(file.relative_to(root)) if root.is_dir() else file.name for file in files]
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    encodings: dict[Path, str] = {}

    def read(report: ReadReport | None) -> Documents:
        if report is not None:
            report.duplicates = find_duplicates(files, names)
            encodings.update((file, detect_encoding(file)) for file in files)
            report.latin1_files = [
                name for file, name in zip(files, names, strict=True) if encodings[file] == "latin-1"
            ]
        for file, name in zip(files, names, strict=True):
            yield name, read_chunks(file, name, encodings[file], report or ReadReport())

    return DocumentSource(read, repr(stats))


def _text_files(root: Path) -> list[Path]:
    """Return the text files at a path. Raise ValueError if there are none; a single empty file is returned."""
    try:
        found = walk_files(root) if root.is_dir() else [root]
    except OSError as error:
        raise ValueError(f"data.path={root} cannot be read: {error}") from error
    left, files = defaultdict(list), []
    for file in found:
        reason = reason_not_text(file)
        if reason is None or (reason == "empty" and file == root):
            files.append(file)
        else:
            left[reason].append(file.relative_to(root) if root.is_dir() else file.name)
    if not files:
        why = ", ".join(f"{len(names)} {reason} (first: {names[0]})" for reason, names in left.items())
        hint = f"; left out: {why}" if why else ""
        raise ValueError(
            f"data.path={root} holds no text; give UTF-8 text, such as a novel.txt, or a folder of it{hint}"
        )
    warn_left_out(len(found), left, root)
    return files


def _download(config: DataConfig) -> Path:
    """Return the file at data.path, or of data.url; either way with the right checksum, if one is given."""
    if config.path is None and config.url is None:
        raise ValueError("data.source=url needs data.url=…, or data.path=… for a file that is here already")
    url = config.url or ""
    kept = cache_dir() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16]  # many a file is called input.txt
    file = Path(config.path) if config.path else kept / (Path(url.rstrip("/")).name or "text")
    if not file.is_file() and config.path:
        raise ValueError(f"data.path={config.path} is no file")
    if not file.is_file():
        _fetch(url, file, config.sha256)
    found = _sha256(file)
    if config.sha256 and found != config.sha256:
        hint = "give data.sha256=null if it is meant" if config.path else "remove it"
        raise ValueError(f"{file} has the SHA-256 sum {found}, and not data.sha256={config.sha256}; {hint}")
    return file


def _fetch(url: str, file: Path, sha256: str | None) -> None:
    """Download under another name first: an existing file is complete."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"data.url={url} must begin with https:// (or http://); a file that is here is data.path=FILE")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        new = Path(folder) / file.name
        try:
            with urlopen(url, timeout=30) as stream, new.open("wb") as out:
                while block := stream.read(CHUNK_SIZE):
                    out.write(block)
        except (URLError, OSError, ValueError) as error:
            raise ValueError(
                f"{url} cannot be downloaded ({error}); put that file into {file.parent}, or say data.path=FILE"
            ) from error
        found = _sha256(new)
        if sha256 and found != sha256:
            raise ValueError(f"{url} has the SHA-256 sum {found}, and not data.sha256={sha256}; it was not kept")
        os.replace(new, file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_datasets(config: DataConfig) -> DocumentSource:
    """Return a Hugging Face data set, its splits joined: each row is a document."""
    path = _required_path(config, "the name of a data set, or of a loader such as json with data.files=…")
    try:
        package = import_module("datasets")
    except ModuleNotFoundError as error:
        raise ValueError("data.source=datasets needs the package datasets: pip install -e '.[datasets]'") from error
    try:
        splits = package.load_dataset(path, data_files=config.files)
    except (OSError, ValueError, ConnectionError) as error:
        raise ValueError(f"datasets cannot load {path!r} (data.files={config.files}): {error}") from error
    for split, rows in splits.items():
        if config.column not in rows.column_names:
            raise ValueError(f"{path} has no column {config.column!r} in {split}; possible: {rows.column_names}")

    def read(report: ReadReport | None) -> Documents:
        report = report or ReadReport()
        for split, rows in splits.items():
            for number, row in enumerate(rows):
                text = row[config.column]
                if not isinstance(text, str):
                    raise ValueError(
                        f"{path} has no text in column {config.column!r} of row {number} of {split}, but {text!r:.40}; "
                        f"give another data.column (possible: {rows.column_names}), or leave out such rows"
                    )
                yield f"{split} {number}", iter([replace_undecodable(text, split, report)])

    return DocumentSource(read, repr([config.column, *((split, rows._fingerprint) for split, rows in splits.items())]))
