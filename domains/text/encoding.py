"""Files of unknown origin as text: which are none, in which encoding the others are, and what they say."""

import codecs
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domains.files import marked_encoding
from domains.text.tokenizers import END

PIECE, HEAD = 2**20, 2**13  # bytes read at once, and looked at to tell what a file is
BROKEN = re.compile(f"[\udc80-\udcff{END}]")  # bytes that are no UTF-8, as Python escapes them, and what marks an end
ABOVE_ASCII = re.compile(r"[^\x00-\x7f]")
LAST_WORD = re.compile(r"(?<=\S)\s+\S*\Z")  # where a tokenizer begins anew whatever came before
OTHER = {  # how files begin that are no text, though they may hold some
    "packed, to be unpacked first": rb"\x1f\x8b|\xfd7zXZ\0|PK\x03\x04|\x28\xb5\x2f\xfd|BZh[1-9]1AY|7z\xbc\xaf|Rar!",
    "PDF": rb"%PDF-",
    "Parquet, which data.source=datasets reads": rb"PAR1",
}


@dataclass
class Findings:
    """Changes and guesses that were made while text was read.

    Attributes:
        broken: how many bytes of each file became �.
        latin1: files that were read as Latin-1, since most of their bytes above ASCII are no UTF-8.
        copies: files that say what another does, and that one.
    """

    broken: Counter[str] = field(default_factory=Counter)
    latin1: list[str] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)


def no_text(file: Path) -> str | None:
    """Why a file is not read as text; None if it is."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not head:
        return "empty"
    if marked_encoding(head):
        return None
    found = (what for what, beginning in OTHER.items() if re.match(beginning, head))
    return next(found, "binary, or UTF-16 without a byte-order mark" if b"\0" in head else None)


def encoding_of(file: Path) -> str:
    """The encoding of a text: by its byte-order mark; else UTF-8, unless most of what is not ASCII is none: Latin-1."""
    with file.open("rb") as stream:
        if mark := marked_encoding(stream.read(HEAD)):
            return mark
    broken = above = 0
    for text in _decoded(file, "utf-8"):
        if not text.isascii():
            here = len(BROKEN.findall(text)) - text.count(END)
            broken, above = broken + here, above + len(ABOVE_ASCII.findall(text)) - here
    return "latin-1" if broken > above else "utf-8"


def pieces(file: Path, name: str, encoding: str, findings: Findings) -> Iterator[str]:
    """The text of a file, cut before white space. What cannot be decoded becomes � and is counted; lines end as in a
    prompt, whatever the system that wrote them."""
    rest = ""
    for text in _decoded(file, encoding):
        text = rest + text
        cut = LAST_WORD.search(text, max(0, len(text) - PIECE // 2))
        whole, rest = (text, "") if cut is None else (text[: cut.start()], text[cut.start() :])
        yield mended(whole, name, findings, encoding)
    yield mended(rest, name, findings, encoding)


def mended(text: str, name: str, findings: Findings, encoding: str = "utf-8") -> str:
    """The same text, with � for what could not be decoded, and for what marks the end of a document."""
    known = 0 if encoding.startswith("utf-8") else text.count("\ufffd")  # other decoders write it themselves
    text, broken = BROKEN.subn("\ufffd", text)
    if broken + known:
        findings.broken[name] += broken + known
    return text


def copies(files: Sequence[Path], names: Sequence[str]) -> list[tuple[str, str]]:
    """Files with the bytes of one before them, and that one."""
    sized, found = defaultdict(list), []
    for file, name in zip(files, names, strict=True):
        sized[file.stat().st_size].append((file, name))
    for alike in sized.values():
        first: dict[str, str] = {}
        for file, name in alike if len(alike) > 1 else ():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if first.setdefault(digest, name) != name:
                found.append((name, first[digest]))
    return found


def _decoded(file: Path, encoding: str) -> Iterator[str]:
    """The text of every piece; with UTF-8, bytes that are none as surrogates."""
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(name)(errors), translate=True)
    with file.open("rb") as stream:
        while block := stream.read(PIECE):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)
