"""Go on from a user's own text."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from domains.text.adapter import Adapter
from domains.text.data import BYTES
from domains.text.generate import Sampling, generate


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Write what follows a prompt: continuation.txt, and continuation.json with how it was made.

    Args:
        source: a text file, whose content is the prompt, or the prompt itself.
    Raises:
        ValueError: for an empty prompt, a file that cannot be read, or a model whose tokens are not bytes.
    """
    if adapter.vocabulary != BYTES:
        raise ValueError(
            f"predict reads and writes bytes, and this model has {adapter.vocabulary} tokens of another vocabulary; "
            "domains.text.generate takes and gives their numbers"
        )
    prompt = source.encode()
    if os.path.isfile(source):
        try:
            prompt = Path(source).read_bytes()
        except OSError as error:
            raise ValueError(f"{source} cannot be read: {error.strerror}") from error
    how = Sampling()
    began = time.perf_counter()
    continuation = bytes(generate(adapter, prompt, how)).decode(errors="replace")
    seconds = time.perf_counter() - began
    record = {
        "prompt": prompt.decode(errors="replace"),
        "continuation": continuation,
        "settings": asdict(how),
        "bytes_per_second": round(how.length / seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "continuation.txt", folder / "continuation.json"]
    paths[0].write_text(continuation, encoding="utf-8")
    paths[1].write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths
