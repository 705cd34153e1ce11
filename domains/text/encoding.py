"""Text files of unknown origin: whether they are text, in which encoding, and their content."""

import codecs
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domains.files import marked_encoding
from domains.text.tokenizers import DOCUMENT_SEPARATOR

CHUNK_SIZE, HEAD_SIZE = 2**20, 2**13  # bytes read at once, and read to detect what a file is
# Bytes that are no UTF-8, as Python escapes them, and the separator of documents:
UNDECODABLE = re.compile(f"[\udc80-\udcff{DOCUMENT_SEPARATOR}]")
NON_ASCII = re.compile(r"[^\x00-\x7f]")
LAST_WHITESPACE = re.compile(r"(?<=\S)\s+\S*\Z")  # tokenizers split there, whatever comes before
SIGNATURES = {  # first bytes of files that are not text
    "packed, to be unpacked first": rb"\x1f\x8b|\xfd7zXZ\0|PK\x03\x04|\x28\xb5\x2f\xfd|BZh[1-9]1AY|7z\xbc\xaf|Rar!",
    "PDF": rb"%PDF-",
    "Parquet, which data.source=datasets reads": rb"PAR1",
}


@dataclass
class ReadReport:
    """Changes and guesses that were made while text was read.

    Attributes:
        replaced_bytes: how many bytes of each file became �.
        latin1_files: files that were read as Latin-1, since most of their bytes above ASCII are no UTF-8.
        duplicates: files with the content of another one, and that one.
    """

    replaced_bytes: Counter[str] = field(default_factory=Counter)
    latin1_files: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)


def reason_not_text(file: Path) -> str | None:
    """Return why a file is not text; None if it is."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_SIZE)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not head:
        return "empty"
    if marked_encoding(head):
        return None
    found = (what for what, signature in SIGNATURES.items() if re.match(signature, head))
    return next(found, "binary, or UTF-16 without a byte-order mark" if b"\0" in head else None)


def detect_encoding(file: Path) -> str:
    """Return the encoding of a text: by its byte-order mark; else UTF-8, or Latin-1 if most of its non-ASCII is no
    UTF-8."""
    with file.open("rb") as stream:
        if mark := marked_encoding(stream.read(HEAD_SIZE)):
            return mark
    broken = above = 0
    for text in _decode_chunks(file, "utf-8"):
        if not text.isascii():
            here = len(UNDECODABLE.findall(text)) - text.count(DOCUMENT_SEPARATOR)
            broken, above = broken + here, above + len(NON_ASCII.findall(text)) - here
    return "latin-1" if broken > above else "utf-8"


def read_chunks(file: Path, name: str, encoding: str, report: ReadReport) -> Iterator[str]:
    """Yield the text of a file, cut before white space. Undecodable bytes become � and are counted; all line ends
    become newlines, as in a prompt.
    """
    rest = ""
    for text in _decode_chunks(file, encoding):
        text = rest + text
        cut = LAST_WHITESPACE.search(text, max(0, len(text) - CHUNK_SIZE // 2))
        whole, rest = (text, "") if cut is None else (text[: cut.start()], text[cut.start() :])
        yield replace_undecodable(whole, name, report, encoding)
    yield replace_undecodable(rest, name, report, encoding)


def replace_undecodable(text: str, name: str, report: ReadReport, encoding: str = "utf-8") -> str:
    """Return the text with � for undecodable bytes, and for the separator of documents."""
    known = 0 if encoding.startswith("utf-8") else text.count("\ufffd")  # other decoders write it themselves
    text, broken = UNDECODABLE.subn("\ufffd", text)
    if broken + known:
        report.replaced_bytes[name] += broken + known
    return text


def find_duplicates(files: Sequence[Path], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return files with the same bytes as an earlier one, and that one."""
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


def _decode_chunks(file: Path, encoding: str) -> Iterator[str]:
    """Yield the text chunk by chunk; with UTF-8, undecodable bytes as surrogates."""
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(name)(errors), translate=True)
    with file.open("rb") as stream:
        while block := stream.read(CHUNK_SIZE):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)
