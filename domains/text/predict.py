"""Continuations of a user's own text."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domains.data_warnings import warn_data
from domains.text.adapter import Adapter
from domains.text.encoding import ReadReport, detect_encoding, read_chunks, reason_not_text
from domains.text.generate import GenerationResult, Sampling, generate_text


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Write the continuation of a prompt: continuation.txt, and continuation.json with its settings.

    Args:
        source: a text file, whose content is the prompt, or the prompt itself.
    Raises:
        ValueError: for an empty prompt, a file that cannot be read, or a prompt that the tokenizer cannot encode.
    """
    return write_continuations(adapter, [source], Sampling(), folder)[1]


def write_continuations(
    adapter: Adapter,
    sources: Sequence[str],
    sampling: Sampling,
    folder: Path,
    *,
    draft: Adapter | None = None,
    stop_strings: Sequence[str] = (),
    special: bool | None = None,
    on_text: Callable[[int, str], None] = lambda row, text: None,
) -> tuple[GenerationResult, list[Path]]:
    """Write the continuation of each prompt to continuation.txt, and to continuation.json with its settings.

    Args:
        sources: text files or prompts.
        draft, stop_strings, special, on_text: as in domains.text.generate.generate_text.
    """
    prompts = [read_prompt(source) for source in sources]
    result = generate_text(
        adapter, prompts, sampling, draft=draft, stop_strings=stop_strings, special=special, on_text=on_text
    )
    record: dict[str, Any] = {
        "texts": [{"prompt": a, "continuation": b} for a, b in zip(prompts, result.texts, strict=True)],
        "settings": asdict(sampling) | {"stops": list(stop_strings), "special": special},
        "tokens": result.tokens,
        "tokens_per_second": round(result.tokens / result.seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "continuation.txt", folder / "continuation.json"]
    paths[0].write_text("\n\n".join(result.texts), encoding="utf-8")
    paths[1].write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result, paths


def read_prompt(source: str) -> str:
    """Return the content of a text file of that name, or `source` itself.

    Raises:
        ValueError: for a file that does not exist or cannot be read, or is not text.
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
    """Return the content of a text file, as a training reads it."""
    reason = reason_not_text(file)
    if reason not in (None, "empty"):
        raise ValueError(f"{file} is no text file: {reason}")
    try:
        encoding, report = detect_encoding(file), ReadReport()
        text = "".join(read_chunks(file, file.name, encoding, report))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    if encoding == "latin-1":
        warn_data(f"{file} is no UTF-8 and was read as Latin-1")
    if broken := report.replaced_bytes.total():
        warn_data(f"{broken:,} bytes of {file} that are no UTF-8 were read as �")
    return text
