"""The report of a comparison: its figures are those of the runs, what is unknown is null, and it works in a browser."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments.compare import verdicts
from experiments.effects import summarise
from experiments.report.comparison import (
    CURVE_POINTS,
    differing_settings,
    flatten,
    loss_curve,
    nan_to_none,
    write_comparison,
)
from experiments.report.page import format_si

BAD = "</script><b>&'é"
VALUES = ["softmax", "window", BAD]
METRICS = {
    "vision": ("error", 0.2),
    "protein": ("long-range P@L/5", 0.3),
    "rl": ("return", 200.0),
    "text": ("bits", 1.5),
}


def made_up(folder: Path, values=tuple(VALUES), domains=tuple(METRICS), seeds=3) -> dict:
    """A comparison's results, and run folders as trainings leave them. The last value is sure to be worse in vision."""
    noise, rows = np.random.default_rng(0), []
    for d, domain in enumerate(domains):
        metric, usual = METRICS[domain]
        for v, value in enumerate(values):
            for seed in range(seeds):
                run = folder / "runs" / f"{d}{v}{seed}"
                score = usual * (1 + 0.5 * (v == 2) + 0.02 * noise.standard_normal())
                costs = {"steps": 170, "parameters": 1000 + 500 * (v == 2), "flops": 1.5e10, "seconds": 11.0 + v}
                costs |= {"peak_memory": 3 * 10**8, "tokens_per_second": 700.0 - 100 * v}
                what = {"domain": domain, "value": value, "seed": seed, "run": str(run)}
                rows.append(
                    {**what, "metric": metric, "score": score, "lower_is_better": metric in ("error", "bits"), **costs}
                )
                run.mkdir(parents=True)
                (run / "config.yaml").write_text(f"model:\n  mixer: {json.dumps(value)}\n  dim: 24\nseed: {seed}\n")
                (run / "summary.json").write_text(json.dumps({"machine": "loom", "versions": {"torch": "2.0"}}))
                lines = [f"{step},{3 - step / 100 + noise.uniform():.3f}," for step in range(4, 170, 5)]
                (run / "metrics.csv").write_text("\n".join(["step,train/loss,val/loss", *lines, "169,,0.5"]))
    return assembled(rows, values, domains, seeds)


def assembled(rows, values, domains, seeds, cannot=()) -> dict:
    results = {
        "factor": "mixer",
        "values": [*values],
        "domains": [*domains],
        "settings": ["model.window=7"],
        "seeds": seeds,
    }
    results |= {
        "equal": "steps",
        "scale": 0.5,
        "cannot": [*cannot],
        "rows": rows,
        "effects": summarise(rows, values, domains),
    }
    results |= {
        "date": "2000-01-02",
        "python": "3",
        "machine": "loom",
        "device": "cpu",
        "commit": "abc",
        "command": BAD,
    }
    return results | {"versions": {"torch": "2.0"}, "verdicts": verdicts(results)}


@pytest.fixture
def written(embedded, tmp_path):
    """written(results): the page, and the data in it."""

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    def write(results: dict) -> tuple[str, dict]:
        write_comparison(tmp_path / "report.html", results)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        return page, json.loads(embedded(page), parse_constant=refuse)

    return write


def test_the_figures_are_those_of_the_runs(tmp_path, written):
    results = made_up(tmp_path)
    page, data = written(results)
    assert len(page) < 800_000
    assert [domain["domain"] for domain in data["domains"]] == [*METRICS]
    for domain in data["domains"]:
        rows = [row for row in results["rows"] if row["domain"] == domain["domain"]]
        assert [run["score"] for run in domain["runs"]] == [row["score"] for row in rows]
        sign = -1 if domain["better"] == "lower" else 1
        base, other = ([row["score"] for row in rows if row["value"] == value] for value in (VALUES[0], BAD))
        window, bad = domain["effects"]
        assert [x["d"] for x in bad["differences"]] == pytest.approx(
            [sign * (b - a) for a, b in zip(base, other, strict=True)]
        )
        assert bad["size"] == pytest.approx(np.mean(base))
        assert bad["spread"] == pytest.approx(np.std(base, ddof=1))
        low, high = bad["student"]
        assert bad["sure"] == (low * high > 0 and bad["low"] * bad["high"] > 0)
        assert (high - low) / 2 == pytest.approx(4.303 * np.std(np.subtract(base, other), ddof=1) / 3**0.5, rel=1e-3)
        assert (bad["other_size"], window["other_size"]) == (True, False)
        assert bad["sure"]
    assert "other size" in page
    assert results["verdicts"][0].startswith("vision: mixer=</script>")


def test_names_cannot_end_the_script_or_become_markup(tmp_path, written):
    page, data = written(made_up(tmp_path))
    assert data["values"] == VALUES
    assert BAD not in page
    assert "<b>&'é" not in page


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_is_unknown_is_null(tmp_path, written, seeds):
    results = made_up(tmp_path, seeds=seeds)
    for row in results["rows"]:
        if row["domain"] == "rl":
            row["score"] = 0.0  # the same for all: no percent, no deviation
        if (row["domain"], row["value"]) == ("text", VALUES[1]):
            row["score"] = math.nan
        if (row["domain"], row["value"]) == ("protein", VALUES[0]):
            row |= {"score": None, "error": BAD}
    cannot = [{"domain": "vision", "value": BAD, "reason": "no such thing"}]
    rows = [row for row in results["rows"] if (row["domain"], row["value"]) != ("vision", BAD)]
    page, data = written(assembled(rows, VALUES, METRICS, seeds, cannot))
    vision, protein, rl, text = data["domains"]
    assert [effect["value"] for effect in vision["effects"]] == [VALUES[1]]
    assert (vision["effects"][0]["spread"] is None) == (vision["effects"][0]["student"][0] is None) == (seeds == 1)
    assert protein["effects"] == []
    assert [mean["value"] for mean in protein["means"]] == VALUES[1:]
    assert {effect[unit] for effect in rl["effects"] for unit in ("size", "spread")} == {None}
    assert text["effects"][0]["change"] is None
    assert "no such thing" in page
    assert f"{seeds} run{'s' if seeds > 1 else ''} failed" in page


def test_no_run_at_all_is_a_page_too(tmp_path, written):
    rows = [{"domain": "rl", "value": value, "seed": 0, "error": "killed", "run": str(tmp_path)} for value in VALUES]
    page, data = written(assembled(rows, VALUES, ["rl"], 1))
    assert data["domains"][0]["metric"] is None
    assert page.count("killed") == 3


def test_curves_are_as_logged_or_means_of_stretches(tmp_path):
    def write(rows):
        (tmp_path / "metrics.csv").write_text("\n".join(["epoch,step,train/loss,val/loss", *rows]))

    assert loss_curve(tmp_path / "nowhere") == []
    write(["0,9,,0.7"])
    assert loss_curve(tmp_path) == []
    write(["0,4,2.5,", "0,9,1.25,", "0,9,,0.7"])
    assert loss_curve(tmp_path) == [[4, 2.5], [9, 1.25]]
    write([f"0,{step},{step}," for step in range(1010)])
    found = loss_curve(tmp_path)
    assert len(found) == CURVE_POINTS
    assert found[0] == [5, 5.0]  # the mean of 0 … 10


def test_settings_that_differ_are_told(tmp_path):
    results = made_up(tmp_path)
    assert differing_settings(results, "rl") == [("model.mixer", VALUES)]
    (tmp_path / "runs" / "200" / "config.yaml").unlink()
    for row in results["rows"]:
        if row["value"] == BAD:
            row["run"] = "nowhere"
    assert differing_settings(results, "rl") == [("model.mixer", [*VALUES[:2], "–"])]
    assert flatten({"a": {"b": None, "c": [1, 2]}, "d": "x", "e": {}}) == {"a.b": "null", "a.c": "[1, 2]", "d": "x"}


def test_numbers_as_json_and_as_text():
    assert nan_to_none({"a": [math.nan, (math.inf, 1.5)], "b": "nan", "c": 3}) == {
        "a": [None, [None, 1.5]],
        "b": "nan",
        "c": 3,
    }
    assert [format_si(x, "B") for x in (None, 7.0, 1234, 5.67e9)] == ["–", "7 B", "1.2 kB", "5.7 GB"]


@pytest.mark.plain
def test_the_page_in_a_browser(opened, tmp_path):
    """Every control changes what is drawn; it fits a phone; the keyboard reaches it; it asks for nothing; no error."""
    results = made_up(tmp_path)
    for row in results["rows"]:
        if (row["domain"], row["value"]) == ("text", VALUES[0]):
            row["score"] = 1.5  # constant: no unit of deviations
    results = assembled(results["rows"], VALUES, METRICS, 3)
    write_comparison(tmp_path / "report.html", results)
    for page in opened(tmp_path / "report.html"):

        def drawing(kind: str, page=page) -> str:
            return page.eval_on_selector_all(f"[data-chart={kind}]", "boxes => boxes.map(b => b.innerHTML).join()")

        def marks(kind: str, page=page) -> int:
            return page.locator(f"[data-chart={kind}][data-domain='0'] svg [aria-label=dot] > *").count()

        assert page.locator("svg[role=img][aria-label]").count() == 16
        assert [marks(kind) for kind in ("scores", "effects", "costs")] == [9, 6 + 2, 9 + 3]
        assert page.locator("[data-chart=curves] svg").first.locator("[aria-label=line] path").count() == 9
        effects, costs = drawing("effects"), drawing("costs")
        page.locator("#common").uncheck()
        assert drawing("effects") != effects
        page.locator("#unit").select_option("spread")
        assert page.locator("[data-chart=effects] svg").count() == 3
        assert page.get_by_text("Not known in this unit for").count() == 1
        page.locator("#cost").select_option("tokens_per_second")
        assert drawing("costs") != costs
        page.locator("#values input").nth(2).focus()
        page.keyboard.press("Space")
        assert [marks(kind) for kind in ("scores", "effects", "costs")] == [6, 3 + 1, 6 + 2]
        page.locator("a[href='#runs']").first.click()
        assert page.get_by_text("last training loss").is_visible()
