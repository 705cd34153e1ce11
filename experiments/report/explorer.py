"""The attention explorer as HTML pages that need nothing beside them."""

import base64
from pathlib import Path
from typing import Any

from experiments.report.offline import write

CAPTIONS = {  # of the explorer, and of the picture of the evaluation
    "vision": (
        "A Vision Transformer on handwritten digits: which patches it puts together to tell one.",
        "A digit of each class, and which pixels its answer drew on.",
    ),
    "protein": (
        "Residue-pair attention on protein chains: which residues it brings together to say which touch.",
        "Predicted contacts beside those of the structure, from the best predicted chain to the worst.",
    ),
    "rl": (
        "A decision transformer on CartPole: which of the steps before it draws on for its next action.",
        "The return that it was asked for against the return that it achieved.",
    ),
    "text": (
        "A language model of bytes on Python's reference prose: what of the text before tells it the next.",
        "How it learned, and what it writes.",
    ),
}


def write_explorer(path: Path, data: dict[str, Any]) -> None:
    """Write what experiments.explain found of one run, the only one in data["runs"], as a page."""
    write(path, "explorer", "explorer", data=data)


def write_demo(
    path: Path, results: dict[str, Any], table: list[list[str]], runs: list[dict[str, Any]], figures: list[list[Path]]
) -> None:
    """Write the demo as a page: its results as a table, head first, the explorer of each run, and the pictures (PNG) of
    its evaluation."""
    write(
        path,
        "demo",
        "explorer",
        data={name: value for name, value in results.items() if name != "rows"} | {"runs": runs},
        head=table[0],
        rows=table[1:],
        captions=[CAPTIONS.get(run["domain"], ("", "")) for run in runs],
        figures=[[(base64.b64encode(p.read_bytes()).decode(), p.stem) for p in paths] for paths in figures],
    )
