"""attend compare: which runs it plans, and what it makes of them."""

import csv
import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from experiments import sweep
from experiments.compare import full_setting_name, make_comparison, print_results, run, verdicts
from experiments.compose import compose, nest_run_settings
from experiments.effects import summarise


def plan(folder: Path, *words: str):
    return make_comparison(
        compose("compare", nest_run_settings("compare", [*words, f"output={folder}"])), folder, Console(quiet=True)
    )


def test_every_domain_value_and_seed_is_a_run(tmp_path):
    found = plan(tmp_path, "factor=norm", "values=[layer,rms]", "domains=[vision,text]", "seeds=3", "model.depth=1")
    runs = {(job["domain"], job["value"], job["seed"]) for job in found["jobs"]}
    assert len(runs) == len(found["jobs"]) == 2 * 2 * 3
    assert len({job["key"] for job in found["jobs"]}) == len(runs)
    for job in found["jobs"]:
        config = compose("config", job["overrides"])
        assert (config.model.norm.value, config.model.depth, config.seed) == (job["value"], 1, job["seed"])


def test_what_a_domain_cannot_take_is_listed_with_the_reason(tmp_path):
    found = plan(tmp_path, "factor=mixer", "values=[softmax,linear]", "domains=[vision,protein]", "seeds=1")
    (row,) = found["cannot"]
    assert (row["domain"], row["value"]) == ("protein", "linear")
    assert "bias" in row["reason"]
    assert {(job["domain"], job["value"]) for job in found["jobs"]} == {
        ("vision", "softmax"), ("vision", "linear"), ("protein", "softmax"),
    }  # fmt: skip


def test_scale_shortens_every_domain_alike(tmp_path):
    found = plan(tmp_path, "factor=norm", "values=[layer,rms]", "domains=[vision,rl]", "seeds=1", "scale=0.1")
    assert {job["domain"]: job["steps"] for job in found["jobs"]} == {"vision": 190, "rl": 100}


@pytest.mark.slow
def test_equal_flops_gives_the_cheaper_value_more_steps(tmp_path):
    words = ["factor=depth", "values=[2,4]", "domains=[vision]", "seeds=1", "scale=0.1", "equal=flops"]
    few, many = (job["steps"] for job in plan(tmp_path, *words)["jobs"])
    assert few == 190
    assert 90 < many < 110  # patches and head cost little beside the blocks
    before = (tmp_path / "budget.json").read_text()
    assert [job["steps"] for job in plan(tmp_path, *words)["jobs"]] == [few, many]
    assert (tmp_path / "budget.json").read_text() == before


def test_names_of_factors():
    config = compose("config", ["domain=text"])
    assert full_setting_name("mixer", config) == "model.mixer"
    assert full_setting_name("width", config) == "model.dim"
    assert full_setting_name("optimizer", config) == "optimizer"
    assert full_setting_name("lr", config) == "optimizer.lr"
    assert full_setting_name("optimizer.lr", config) == "optimizer.lr"
    with pytest.raises(ValueError, match=r"factor=mixr is no setting .* did you mean mixer\?"):
        full_setting_name("mixr", config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["factor=mixer", "values=[softmax]"], "two at least"),
        (["factor=mixer", "values=[softmax,softmax]"], "each once"),
        (["factor=mixer", "values=[softmax,linar]"], "linar"),
        (["factor=mixr", "values=[a,b]"], "did you mean mixer"),
        (["factor=mixer", "values=[softmax,linear]", "domains=[vison]"], "possible: .*vision"),
        (["factor=mixer", "values=[softmax,linear]", "seeds=0"], "at least 1"),
        (["factor=mixer", "values=[softmax,linear]", "model.dpth=3"], "did you mean model.depth"),
    ],
)
def test_a_comparison_that_cannot_be_is_one_sentence(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        plan(tmp_path / "none", *words)
    assert not (tmp_path / "none").exists()


def test_a_run_is_known_by_what_it_is_and_not_by_where_it_lies():
    one = sweep.run_key(compose("config", ["domain=vision", "run=a"]))
    assert one == sweep.run_key(compose("config", ["domain=vision", "run=b"]))
    assert one != sweep.run_key(compose("config", ["domain=vision", "run=a", "seed=1"]))


@pytest.mark.timeout(600)
def test_it_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    """One seed, then two: finished runs are reused, and a failed run is repeated."""
    words = ["factor=norm", "values=[layer,rms]", "domains=[vision]", "scale=0.003", f"output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["attend", "compare"])
    run(compose("compare", [*words, "seeds=1"]))
    first = {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    assert len(first) == 2
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    broken = Path(rows[1]["run"]) / "result.json"
    broken.write_text(json.dumps({"error": "out of memory"}))

    run(compose("compare", [*words, "seeds=2"]))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rows"][0] == rows[0]
    assert results["rows"][2]["score"] == rows[1]["score"]  # the same run gives the same score
    after = {path.parent.name: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    kept = Path(rows[0]["run"]).name
    assert after[kept] == first[kept]
    assert len(after) == 4
    base, other = results["effects"]
    assert (base["seeds"], other["paired"]) == (2, 2)
    assert other["change"] == pytest.approx(
        sum(results["rows"][n]["score"] - results["rows"][n + 2]["score"] for n in (0, 1))
        / 2  # errors: lower is better
    )
    with open(tmp_path / "results.csv", newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [""] * 4
    assert "norm" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_a_run_that_fails_is_a_row_with_its_error(tmp_path, monkeypatch):
    words = ["factor=patch_size", "values=[2,3]", "domains=[vision]", "scale=0.001", "seeds=1", f"output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["attend", "compare"])
    run(compose("compare", words))
    good, bad = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert good["score"] >= 0
    assert "cannot be cut into patches of 3×3" in bad["error"]


def test_the_table_fits_a_narrow_terminal():
    """No line is wider than it, and no cell is broken over two; the costs are for wide ones."""
    costs = {"steps": 7, "flops": 1.3e12, "seconds": 211.0, "peak_memory": 11, "tokens_per_second": 13.0}
    rows = [
        {"domain": domain, "value": value, "seed": seed, "metric": "long-range precision@L/5", "lower_is_better": False}
        | costs
        | {"parameters": 17, "score": score * (1 + seed**2 / 7), "run": ""}
        for domain in ("vision", "protein")
        for value, score in (("softmax", 0.0123456), ("gated_delta", 0.654321))
        for seed in range(3)
    ]
    names = ("softmax", "gated_delta")
    results = {"factor": "mixer", "values": names, "domains": ["vision", "protein"], "rows": rows, "cannot": []}
    results["effects"] = summarise(rows, names, results["domains"])
    results["verdicts"] = verdicts(results)
    for width in (80, 160):
        console = Console(file=StringIO(), width=width)
        print_results(results, console)
        said = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        assert "protein: long-range precision@L/5, higher is better" in said
        assert said.count("│ gated_delta │ 0.8101 ± 0.19") == 2
        assert ("1.3e+12" in said) is (width == 160)
        assert max(map(len, said.split("sure")[0].splitlines())) <= width
