"""The demo's results as one HTML page that needs nothing beside it."""

import base64
from html import escape
from pathlib import Path
from string import Template
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html")
CAPTIONS = {
    "vision": "A Vision Transformer on handwritten digits, and which pixels its answer drew on (attention rollout).",
    "protein": "Residue-pair attention on protein chains: the contacts it predicts beside those of the structure.",
    "rl": "A decision transformer on CartPole: the return it was asked for against the return it achieved.",
    "text": "A language model on Python's reference prose: how it learned, and what it writes.",
}


def write_page(path: Path, results: dict[str, Any], table: list[list[str]], pictures: dict[str, list[Path]]) -> None:
    """Write results.json's content as a page: its table as text, head first, and each domain's pictures (PNG)."""
    head, *rows = table
    head = "".join(f"<th>{escape(column)}</th>" for column in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    figures = "\n".join(_section(name, paths) for name, paths in pictures.items())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        head=head,
        body=body,
        figures=figures,
        seconds=f"{results['total_seconds']:.0f}",
        seed=results["seed"],
        date=escape(results["date"]),
        machine=escape(f"{results['machine']}, {results['device']}"),
        versions=escape(versions),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _section(name: str, pictures: list[Path]) -> str:
    images = "".join(map(_embedded, pictures))
    return f"<section><h2>{escape(name)}</h2><p>{escape(CAPTIONS.get(name, ''))}</p>{images}</section>"


def _embedded(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'
