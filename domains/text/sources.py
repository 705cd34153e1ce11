"""Where text comes from: documents, each a name and its text in pieces, so that no document has to fit into memory."""

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
from domains.text.encoding import PIECE, Findings, copies, encoding_of, mended, no_text, pieces
from domains.text.tokenizers import END

Documents = Iterator[tuple[str, Iterator[str]]]


@dataclass
class Texts:
    """Documents to read, as often as one likes.

    Attributes:
        read: gives them, in order; notes in its argument, if there is one, what it changed or guessed.
        mark: what identifies them, for the cache; None if what is made of them is not worth keeping.
        end: what stands between two documents.
    """

    read: Callable[[Findings | None], Documents]
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
    """A document a file; what is no text in a folder is left out, and said."""
    root = Path(path)
    if not root.exists():
        raise ValueError(f"data.path={path} does not exist; give a text file or a folder of them")
    files = _readable(root)
    names = [str(file.relative_to(root)) if root.is_dir() else file.name for file in files]
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    encodings: dict[Path, str] = {}

    def read(findings: Findings | None) -> Documents:
        if findings is not None:
            findings.copies = copies(files, names)
            encodings.update((file, encoding_of(file)) for file in files)
            findings.latin1 = [name for file, name in zip(files, names, strict=True) if encodings[file] == "latin-1"]
        for file, name in zip(files, names, strict=True):
            yield name, pieces(file, name, encodings[file], findings or Findings())

    return Texts(read, repr(stats))


def _readable(root: Path) -> list[Path]:
    """The text files at a path. Raises ValueError if there are none; an empty file alone is for others to judge."""
    try:
        found = walk_files(root) if root.is_dir() else [root]
    except OSError as error:
        raise ValueError(f"data.path={root} cannot be read: {error}") from error
    left, files = defaultdict(list), []
    for file in found:
        reason = no_text(file)
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

    def read(findings: Findings | None) -> Documents:
        findings = findings or Findings()
        for split, part in parts.items():
            for number, row in enumerate(part):
                text = row[config.column]
                if not isinstance(text, str):
                    raise ValueError(
                        f"{path} has no text in column {config.column!r} of row {number} of {split}, but {text!r:.40}; "
                        f"give another data.column (possible: {part.column_names}), or leave out such rows"
                    )
                yield f"{split} {number}", iter([mended(text, split, findings)])

    return Texts(read, repr([config.column, *((split, part._fingerprint) for split, part in parts.items())]))
