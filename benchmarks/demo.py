"""Put a finished demo into README: its table and seconds, docs/demo.json, and docs/demo.png, its protein model's page.

    attend demo && python benchmarks/demo.py [outputs/demo]

The picture needs the extra browser, and Debian's chromium.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from experiments.demo import COLUMNS, table_row

ROOT = Path(__file__).parents[1]
WIDE, HIGH = 1000, 1250  # pixels


def main(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    shutil.copy(folder / "results.json", ROOT / "docs" / "demo.json")
    lines = [[*COLUMNS], ["---"] * len(COLUMNS), *map(table_row, results["rows"])]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(r"(?m)^\| domain \| metric .*\n(\|.*\n)*", lambda _: table, readme, count=1)
    readme = re.sub(r"\(after \d+ s;", f"(after {results['total_seconds']:.0f} s;", readme)
    (ROOT / "README.md").write_text(readme, encoding="utf-8")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDE, "height": HIGH})
        page.goto((folder / "index.html").resolve().as_uri())
        page.locator("#runs label", has_text="protein").click()
        page.evaluate("document.querySelector('h2').scrollIntoView()")  # below the table
        page.screenshot(path=ROOT / "docs" / "demo.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
