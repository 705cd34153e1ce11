"""Go on from a user's own text."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domains.data_warnings import warn_data
from domains.text.adapter import Adapter
from domains.text.encoding import Findings, encoding_of, no_text, pieces
from domains.text.generate import Sampling, Written, texts


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Write what follows a prompt: continuation.txt, and continuation.json with how it was made.

    Args:
        source: a text file, whose content is the prompt, or the prompt itself.
    Raises:
        ValueError: for an empty prompt, a file that cannot be read, or a prompt that the tokenizer cannot hold.
    """
    return go_on(adapter, [source], Sampling(), folder)[1]


def go_on(
    adapter: Adapter,
    sources: Sequence[str],
    how: Sampling,
    folder: Path,
    *,
    draft: Adapter | None = None,
    stops: Sequence[str] = (),
    special: bool | None = None,
    show: Callable[[int, str], None] = lambda row, text: None,
) -> tuple[Written, list[Path]]:
    """Write what follows each prompt to continuation.txt, and to continuation.json with how it was made.

    Args:
        sources: text files or prompts.
        draft, stops, special, show: as in domains.text.generate.texts.
    """
    prompts = [read(source) for source in sources]
    made = texts(adapter, prompts, how, draft=draft, stops=stops, special=special, show=show)
    record: dict[str, Any] = {
        "texts": [{"prompt": a, "continuation": b} for a, b in zip(prompts, made.texts, strict=True)],
        "settings": asdict(how) | {"stops": list(stops), "special": special},
        "tokens": made.tokens,
        "tokens_per_second": round(made.tokens / made.seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "continuation.txt", folder / "continuation.json"]
    paths[0].write_text("\n\n".join(made.texts), encoding="utf-8")
    paths[1].write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return made, paths


def read(source: str) -> str:
    """The content of a text file of that name, or `source` itself.

    Raises:
        ValueError: for a file that is not there or cannot be read, or is no text.
    """
    if os.path.isfile(source):
        return read_text(Path(source))
    if re.fullmatch(r"\S+\.(txt|md)", source):
        raise ValueError(f"there is no file {source}; give a text file, or a prompt in words")
    if os.path.isdir(source) or re.fullmatch(r"\S*/\S*", source):
        what = "is a folder" if os.path.isdir(source) else "names no file"
        warn_data(f"{source} {what}: it was read as the prompt itself")
    return source


def read_text(file: Path) -> str:
    """The content of a text file, as a training reads it."""
    reason = no_text(file)
    if reason not in (None, "empty"):
        raise ValueError(f"{file} is no text file: {reason}")
    try:
        encoding, findings = encoding_of(file), Findings()
        text = "".join(pieces(file, file.name, encoding, findings))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    if encoding == "latin-1":
        warn_data(f"{file} is no UTF-8 and was read as Latin-1")
    if broken := findings.broken.total():
        warn_data(f"{broken:,} bytes of {file} that are no UTF-8 were read as �")
    return text
