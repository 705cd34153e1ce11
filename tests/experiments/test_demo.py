"""The demo writes one page with its results and, for each domain, an explorer that works in a browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import demo
from experiments.compose import compose

pytestmark = pytest.mark.plain  # so that one demo serves all tests here
TINY = ["model.dim=12", "model.num_heads=3", "model.depth=2", "trainer.max_steps=2", "trainer.val_check_interval=2"]
MORE = {
    "vision": [],
    "protein": ["model.pair_dim=6", "data.crop_size=22"],
    "rl": ["data.episodes=11"],
    "text": ["data.context=67", "data.stride=67"],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, embedded) -> tuple[Path, dict[str, Any]]:
    """The real demo of models that are as good as untrained: its page, and the data in that."""
    output, patched = tmp_path_factory.mktemp("demo"), pytest.MonkeyPatch()
    small = lambda name, words: compose(name, [*words, *TINY, *MORE[words[0].removeprefix("domain=")]])  # noqa: E731
    patched.setattr(demo, "compose", small)
    demo.run(compose("demo", [f"output={output}"]))
    patched.undo()
    page = (output / "index.html").read_text(encoding="utf-8")
    return output, json.loads(embedded(page))


def test_the_page_has_results_pictures_and_an_explorer_of_every_domain(written):
    output, data = written
    page = (output / "index.html").read_text(encoding="utf-8")
    assert len(page) < 5e6
    assert [run["domain"] for run in data["runs"]] == [*MORE]
    for run in data["runs"]:
        (explanation,) = run["examples"]
        assert {m["layer"] for m in explanation["maps"]} == {1, 2}
    rows = json.loads((output / "results.json").read_text())["rows"]
    assert {row["domain"] for row in rows} == {*MORE}
    for row in rows:
        assert f"<td>{row['metric']}</td>" in page
        assert row["baseline_name"] in page
    assert page.count('src="data:image/png') == 4


def test_the_page_in_a_browser(opened, written):
    """A tab for each domain, by mouse and by keyboard; a click shows the weights of that run; it fits a phone."""
    output, data = written
    for page in opened(output / "index.html"):
        for number, run in enumerate(data["runs"]):
            if number == 1:
                page.get_by_text(run["domain"], exact=True).locator("visible=true").last.click()
            elif number:
                page.locator("#runs :checked").focus()
                page.keyboard.press("ArrowRight")
            (explanation,) = run["examples"]
            assert page.locator("#to .cell").all_text_contents() == [e["label"] for e in explanation["elements"]]
            page.locator("#to-1").click()
            assert explanation["elements"][1]["note"][1:] in page.locator("#chosen").inner_text()
            weights = page.eval_on_selector_all("#by .cell", "cells => cells.map(c => Number(c.dataset.weight))")
            (mean,) = [m for m in explanation["maps"] if (m["layer"], m["head"]) == (2, "mean")]
            assert max(weights) > 0
            assert max(weights) <= mean["top"] + 1e-4
            assert page.locator("img.evaluated:visible").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
