"""Go on from a user's own text."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domains.text.adapter import Adapter
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
    """The content of a text file of that name, or `source` itself."""
    if not os.path.isfile(source):
        if re.fullmatch(r"\S+\.(txt|md)", source):
            raise ValueError(f"there is no file {source}; give a text file, or a prompt in words")
        return source
    try:
        text = Path(source).read_text(encoding="utf-8-sig", errors="replace")
        if "\0" in text:
            raise ValueError(f"{source} is no text file")
        return text
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from error
