"""The documentation is true: its code runs, its table is that of the file."""

import json
import re
import runpy
from pathlib import Path
from statistics import mean, stdev

import pytest

from experiments.bench import cells
from experiments.evaluate import figure

DOCS = Path(__file__).parent.parent / "docs"
CUTS = ("L", "L/2", "L/5")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), page.name, "exec"), {})  # one after another, as a reader would


def test_the_notebook_runs_from_top_to_bottom():
    notebook = json.loads((DOCS.parent / "notebooks" / "first_evening.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    exec(compile("\n".join(cells), "first_evening", "exec"), {})


def test_the_kernel_table_is_that_of_the_file():
    page = (DOCS / "core.md").read_text(encoding="utf-8")
    for row in json.loads((DOCS / "kernels.json").read_text(encoding="utf-8"))["rows"]:
        assert f"| {' | '.join(cells(row))} |" in page


@pytest.mark.parametrize(
    "record", sorted([*DOCS.rglob("*.json"), *(DOCS.parent / "benchmarks").glob("*.json")]), ids=lambda path: path.stem
)
def test_no_record_names_a_folder_of_some_machine(record):
    assert not re.search(r"""(?<![^\s=,\["'])/\w+/""", record.read_text(encoding="utf-8"))


def results(domain: str):
    """(together, first run, number of runs) of each recipe of a domain; the first files did not say whose they are."""
    for file in sorted((DOCS / "results").glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.get("domain", "vision") == domain:
            yield found["together"], found["runs"][0], len(found["runs"])


def test_the_recipes_scores_are_those_of_the_files():
    page = (DOCS / "vision.md").read_text(encoding="utf-8")
    for together, first, runs in results("vision"):
        accuracy = together["accuracy"]
        spread = "" if accuracy["deviation"] is None else f" ± {100 * accuracy['deviation']:.1f}"
        numbers = f"| {100 * accuracy['mean']:.1f}{spread} % | {runs} | {first['parameters']:,} |"
        assert f"{numbers} {first['seconds']:,.0f} |" in page
    for row in json.loads((DOCS.parent / "benchmarks" / "vision.json").read_text(encoding="utf-8"))["rows"]:
        assert f"{row['time_ratio']:.2f}" in page


def test_the_returns_are_those_of_the_files():
    page = (DOCS / "rl.md").read_text(encoding="utf-8")
    for together, first, runs in results("rl"):
        achieved = {name.split("/")[1]: value for name, value in together.items() if re.match("achieved/.*mean", name)}
        asked = max(achieved, key=lambda target: achieved[target]["mean"])  # the best target; "mean" if none was asked
        mean, deviation = achieved[asked]["mean"], achieved[asked]["deviation"]
        spread = "" if deviation is None else f" ± {figure(deviation)}"
        told = "–" if asked == "mean" else asked
        numbers = f"| {told} | {figure(mean)}{spread} | {figure(together['data_mean_return']['mean'])} |"
        assert f"{numbers} {runs} | {first['parameters']:,} | {first['seconds']:,.0f} |" in page
    for row in json.loads((DOCS / "rl_speed.json").read_text(encoding="utf-8"))["rows"]:
        assert f"| {row['what']} | {row['steps_per_second']:,.0f} | {row['times']:.1f} |" in page


def test_the_kills_are_those_of_the_file():
    found = json.loads((DOCS / "results" / "kills.json").read_text(encoding="utf-8"))["together"]
    page = (DOCS / "security.md").read_text(encoding="utf-8").replace("\n ", "")
    assert f"killed real processes {found['kills']} times" in page
    assert f"all {found['runs']} runs ended with the same weights" in page
    assert found["same"] == found["runs"]


def test_the_texts_figures_are_those_of_the_files():
    page = (DOCS / "text.md").read_text(encoding="utf-8")
    for together, first, runs in results("text"):
        loss = together["loss"]
        spread = "" if loss["deviation"] is None else f" ± {loss['deviation']:.3f}"
        numbers = f"| {loss['mean']:.3f}{spread} | {runs} | {first['parameters']:,} |"
        assert f"{numbers} {first['seconds']:,.0f} |" in page
    for row in json.loads((DOCS.parent / "benchmarks" / "text_generation.json").read_text(encoding="utf-8"))["rows"]:
        speeds = " | ".join(f"{row['tokens_per_second'][name]:,.0f}" for name in ("transformers", "ours"))
        assert f"| {row['batch']} | {speeds} | {row['times']:.1f} |" in page
        assert row["same_tokens"]
    [large] = json.loads((DOCS.parent / "benchmarks" / "text_generation_large.json").read_text(encoding="utf-8"))[
        "rows"
    ]
    speeds = " and ".join(f"{large['tokens_per_second'][name]:.2f}" for name in ("transformers", "ours"))
    assert f"{speeds} tokens per second, {large['times']:.2f} times" in page
    assert large["same_tokens"]
    for row in json.loads((DOCS.parent / "benchmarks" / "text_blimp.json").read_text(encoding="utf-8"))["rows"]:
        shares = " | ".join(f"{share:.3f}" for share in (row["mean"], *row["shares"].values()))
        assert f"| {row['run']} | {shares} |" in page


def test_the_seconds_to_a_loss_are_those_of_the_file():
    page = (DOCS / "text.md").read_text(encoding="utf-8")
    theirs, ours = json.loads((DOCS.parent / "benchmarks" / "text_seconds.json").read_text(encoding="utf-8"))["rows"]
    assert f"within {ours['steps']} of its 2,000 steps, in {ours['part']:.2f} of the seconds" in page
    step = [1000 * row["seconds"] / row["steps"] for row in (ours, theirs)]
    assert f"{step[0]:.0f} ms against {step[1]:.0f} ms a step" in page


def spread(value: dict[str, float | None]) -> str:
    """Mean and deviation; the mean alone of what no seed changes."""
    return f"{value['mean']:.3f}" + (f" ± {value['deviation']:.3f}" if value["deviation"] else "")


def test_the_precisions_are_those_of_the_files():
    page = (DOCS / "protein.md").read_text(encoding="utf-8")
    found = json.loads((DOCS / "results" / "contacts.json").read_text(encoding="utf-8"))["together"]
    for method in {
        name.removesuffix(" P@L/5") for name in found if re.fullmatch(r".*(?<! short)(?<! medium) P@L/5", name)
    }:
        row = " | ".join(spread(found[f"{method} P@{cut}"]) for cut in CUTS)
        assert f"| {method} | {row} |" in page
    by_depth = json.loads((DOCS / "results" / "contacts_alignment.json").read_text(encoding="utf-8"))["together"]
    for method in ("model", "inverse covariance", "covariance"):
        parts = ("", *(f", Meff {depth}" for depth in ("< 30", "30-120", "> 120")))
        assert f"| {method} | {' | '.join(spread(by_depth[f'{method} P@L/5{part}']) for part in parts)} |" in page
    rows = json.loads((DOCS.parent / "benchmarks" / "protein.json").read_text(encoding="utf-8"))["rows"]
    for model in {row["model"] for row in rows}:
        mine = [row for row in rows if row["model"] == model and row["minutes"] == 2.5]
        told = [f"{mean(r[f'P@{cut}'] for r in mine):.3f} ± {stdev(r[f'P@{cut}'] for r in mine):.3f}" for cut in CUTS]
        assert f"| {model} | {mean(row['steps'] for row in mine):.0f} | {' | '.join(told)} |" in page
    longer = {row["model"]: row for row in rows if row["minutes"] == 6}
    with_it, without = longer["whole"], longer["no triangles"]
    assert f"{without['P@L/5']:.3f} after {without['steps']:,} steps without" in page
    assert f"{with_it['P@L/5']:.3f} after {with_it['steps']:,} with it" in page
    assert f"{without['cpu_seconds']:.0f} and {with_it['cpu_seconds']:.0f} s" in page
    assert f"Q3 {found['Q3']['mean']:.3f}, Q8 {found['Q8']['mean']:.3f}" in page


def test_the_rounds_of_own_play_are_those_of_the_file():
    page = (DOCS / "rl.md").read_text(encoding="utf-8")
    found = json.loads((DOCS / "rl_online.json").read_text(encoding="utf-8"))
    rows = found["rows"]
    assert f"| round | {' | '.join(str(row['round']) for row in rows)} |" in page
    spread = [f"{figure(row['mean'])} ± {figure(row['deviation'])}" for row in rows]
    assert f"| mean return | {' | '.join(spread)} |" in page
    for run in found["runs"]:
        assert f"| seed {run['seed']} | {' | '.join(figure(value) for value in run['returns'])} |" in page


def test_the_curve_of_contacts_is_that_of_the_file():
    page = (DOCS / "protein.md").read_text(encoding="utf-8")
    found = json.loads((DOCS / "contacts_curve.json").read_text(encoding="utf-8"))
    depths = ("", ", Meff < 30", ", Meff 30-120", ", Meff > 120")
    for chains, steps in {(row["chains"], row["steps"]) for row in found["rows"]}:
        rows = [row for row in found["rows"] if (row["chains"], row["steps"]) == (chains, steps)]
        columns = [[row[f"model P@L/5{depth}"] for row in rows] for depth in depths]
        seeds = ", ".join(str(row["seed"]) for row in rows)
        shown = [f"{mean(c):.3f}" + (f" ± {stdev(c):.3f}" if len(c) > 1 else "") for c in columns]
        assert f"| {chains:,} | {steps:,} | {seeds} | {' | '.join(shown)} |" in page
    assert f"{found['line']['each_doubling']:.3f}" in page
    assert f"about {round(found['line']['steps_at_goal'], -3):,} steps" in page


def test_what_was_planned_is_near_what_was_measured():
    rows = json.loads((DOCS / "plan.json").read_text(encoding="utf-8"))["rows"]
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    ratios = [row["planned"] / row["measured"] for row in rows]
    assert f"{len(rows)} real trainings" in page
    assert f"{min(ratios):.2f} to {max(ratios):.2f}" in page


def test_the_pages_of_figures_are_those_that_are_written():
    pages = runpy.run_path(str(DOCS.parent / "benchmarks" / "pages.py"))
    assert pages["results"]() == (DOCS / "results.md").read_text(encoding="utf-8")
    assert pages["performance"]() == (DOCS / "performance.md").read_text(encoding="utf-8")
    told = {word.partition("=")[2] for row in pages["ROWS"] for word in row.command.split()[:1]}
    recipes = {
        path.stem for group in ("experiment", "domain") for path in (DOCS.parent / "conf" / group).glob("*.yaml")
    }
    assert told == recipes


def test_the_comparison_of_mixers_is_that_of_the_file():
    page = (DOCS / "compare.md").read_text(encoding="utf-8")
    found = json.loads((DOCS / "mixers.json").read_text(encoding="utf-8"))
    for domain in found["domains"]:
        lines = [line for line in found["effects"] if line["domain"] == domain and line["seeds"]]
        cells = [f"{c['mean']:.4g} ± {c['deviation']:.2g}" + " *" * bool(c.get("sure")) for c in lines]
        assert f"| {domain} | {lines[0]['metric']} | {' | '.join(cells)} |" in page
    sure = [line for line in found["effects"] if line.get("sure")]
    assert len(sure) == len(found["verdicts"])
    assert all(f"{abs(line['percent']):.1f} %" in page for line in sure)
