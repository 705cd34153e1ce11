"""The code in the documentation runs, and its links exist."""

import json
import re
from pathlib import Path

import pytest

from domains.protein import files as protein
from domains.vision.decode import supported_formats

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
MORE = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "sensors" / "README.md"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_code_of_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), page.name, "exec"), {})  # one after another, as a reader would


def test_the_notebook_runs_from_top_to_bottom():
    notebook = json.loads((ROOT / "notebooks" / "first_evening.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    exec(compile("\n".join(cells), "first_evening", "exec"), {})


def links(page: Path) -> list[str]:
    """Return the links of a page within this repository."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=name)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


def test_there_are_links_to_follow():
    assert len(links(ROOT / "README.md")) > 10


def test_the_page_of_data_names_every_kind_of_file():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for suffix in (*protein.SUFFIXES, *protein.COMPRESSED):
        assert f"`{suffix}`" in page
    images = set(re.findall(r"`(\.\w+)`", page.partition("## Images")[2].partition("\n## ")[0]))
    assert len(images) >= 10
    assert images <= supported_formats().keys()  # some of many: they depend on Pillow
