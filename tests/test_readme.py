"""The README shows the demo's table as it was really measured."""

import json
import re
from pathlib import Path

from experiments.demo import COLUMNS, cells

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_file():
    results = json.loads((ROOT / "docs" / "demo.json").read_text(encoding="utf-8"))
    for line in ([*COLUMNS], *(cells(row) for row in results["rows"])):
        assert f"| {' | '.join(line)} |" in README
    assert f"{results['total_seconds']:.0f} s" in README


def test_every_linked_file_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_text_figure_without_recall_is_that_of_the_file():
    found = json.loads((ROOT / "docs" / "text_without_recall.json").read_text(encoding="utf-8"))
    assert f"{found['measures']['bits_per_byte']:.2f} bits per byte" in README.replace("\n", " ")
