"""The attention explorer as self-contained HTML pages."""

import base64
from pathlib import Path
from typing import Any

from experiments.report.page import write_page

CAPTIONS = {  # of the explorer, and of the evaluation's figure
    "vision": (
        "A Vision Transformer on handwritten digits: which patches it combines to recognise one.",
        "A digit of each class, and the pixels that its prediction used.",
    ),
    "protein": (
        "Residue-pair attention on protein chains: which residues it combines to predict contacts.",
        "Predicted contacts beside those of the structure, from the best predicted chain to the worst.",
    ),
    "rl": (
        "A decision transformer on CartPole: which earlier steps it uses for its next action.",
        "The target return against the achieved return.",
    ),
    "text": (
        "A language model of bytes on Python's reference prose: which earlier text it uses to predict the next byte.",
        "Its training curve, and a sample of its text.",
    ),
}


def write_explorer(path: Path, data: dict[str, Any]) -> None:
    """Write the result of experiments.explain, with one run in data["runs"], as a page."""
    write_page(path, "explorer", "explorer", data=data)


def write_demo(
    path: Path, results: dict[str, Any], table: list[list[str]], runs: list[dict[str, Any]], figures: list[list[Path]]
) -> None:
    """Write the demo as a page: its results as a table (header first), the explorer of each run, and the figures (PNG)
    of its evaluation."""
    write_page(
        path,
        "demo",
        "explorer",
        data={name: value for name, value in results.items() if name != "rows"} | {"runs": runs},
        head=table[0],
        rows=table[1:],
        captions=[CAPTIONS.get(run["domain"], ("", "")) for run in runs],
        figures=[[(base64.b64encode(p.read_bytes()).decode(), p.stem) for p in paths] for paths in figures],
    )
