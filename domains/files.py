"""Files from anywhere: those below a folder, and text in the encoding that it came in."""

import codecs
from pathlib import Path

from domains.data_warnings import warn_left_out

MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16's, with which one begins
MARKS |= {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def walk_files(folder: Path) -> list[Path]:
    """Return all files below a folder, in order of their paths; links to files and to folders are followed.

    Hidden files and folders, whose name begins with a dot, and what macOS packs into __MACOSX are passed over. A folder
    is read once, though several links lead to it, so links in a circle end. What is left out for that is said, and so
    are links that lead nowhere.
    """
    files, twice, dead, closed = [], [], [], []
    folders, links, read = [folder], [], set()
    while folders or links:  # what the folder holds itself comes before what links in it lead to
        top = folders.pop() if folders else links.pop(0)
        if top.resolve() in read:
            twice.append(top)
            continue
        read.add(top.resolve())
        try:
            inside = sorted(top.iterdir())
        except OSError:
            closed.append(top)
            continue
        for path in inside:
            if path.name.startswith(".") or path.name == "__MACOSX":
                continue
            if path.is_file():
                files.append(path)
            elif path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.is_symlink():
                dead.append(path)
    left = {"read already": twice, "leading nowhere": dead, "that may not be opened": closed}
    warn_left_out(len(files) + sum(map(len, left.values())), left, folder, "files and links")
    return sorted(files)


def decode_text(data: bytes) -> tuple[str, str]:
    """Decode text of unknown origin, and turn all line ends into "\\n".

    Returns:
        The text, and the encoding: by its byte-order mark UTF-8, UTF-16 or UTF-32; else UTF-8, or where that fails
        Latin-1, which takes any bytes.
    """
    encoding = marked_encoding(data) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text, encoding = data.decode("latin-1"), "latin-1"
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte-order mark tells, None if data begin with none."""
    return next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
