"""The figures of README and docs equal those of the files, and each file records its environment."""

import json
import re
import runpy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from experiments import demo
from experiments.bench import table_row
from experiments.evaluate import format_score

ROOT = Path(__file__).parent.parent
RECORDS = sorted(
    str(path.relative_to(ROOT)) for folder in ("docs", "benchmarks") for path in (ROOT / folder).rglob("*.json")
)
CUTS = ("L", "L/2", "L/5")


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def record(path: str) -> Any:
    return json.loads(text(path))


MARKS = {"commit", "versions", "machine"}
OLD = {  # made before commits were kept; nothing is added here, and what is made anew goes
    "benchmarks/text_blimp.json",
    "benchmarks/text_training.json",
    "benchmarks/vision.json",
    "docs/contacts_curve.json",
    "docs/results/cartpole_own.json",
    "docs/results/contacts_triangles.json",
    "docs/results/fashion_mnist.json",
    "docs/results/hopper.json",
    "docs/results/hopper_bc.json",
    "docs/results/kills.json",
    "docs/results/lunarlander.json",
    "docs/results/lunarlander_bc.json",
    "docs/results/shakespeare_residual_scalars.json",
    "docs/results/shakespeare_value_embeddings.json",
    "docs/results/sign_digits.json",
    "docs/results/swissprot.json",
    "docs/rl_online.json",
}


def marked(path: str) -> bool:
    """Return whether a record, or each run in it, has its commit, versions and machine."""
    found = record(path)
    runs = found.get("runs") or found.get("rows") or [{}]
    return found.keys() >= MARKS or all(run.keys() >= MARKS for run in runs)


@pytest.mark.parametrize("path", RECORDS)
def test_every_record_says_where_it_comes_from(path):
    assert marked(path) != (path in OLD), "take it out of OLD" if path in OLD else f"it needs {MARKS}"


def test_the_old_records_are_there():
    assert set(RECORDS) >= OLD


def test_the_table_of_the_demo_is_that_of_the_file():
    results, page = record("docs/demo.json"), text("README.md")
    for line in ([*demo.COLUMNS], *(demo.table_row(row) for row in results["rows"])):
        assert f"| {' | '.join(line)} |" in page
    assert f"{results['total_seconds']:.0f} s" in page


def test_the_text_figure_without_ngram_lookup_is_that_of_the_file():
    found = record("docs/text_without_ngram_lookup.json")
    assert f"{found['metrics']['bits_per_byte']:.2f} bits per byte" in text("README.md").replace("\n", " ")


def test_the_kernel_table_is_that_of_the_file():
    page, rows = text("docs/core.md"), record("docs/kernels.json")["rows"]
    for row in rows:
        assert f"| {' | '.join(table_row(row))} |" in page
    told = {row["case"]: (row["time_ratio"], row["memory_ratio"]) for row in rows}
    time, memory = told["trained bias, N 192 (triangle)"]
    assert f"takes {time:.2f} of torch's time and {memory:.2f} of its memory" in text("README.md").replace("\n", " ")
    time, memory = told["window 128, L 4096"]
    assert f"{time:.2f} of the time of causal attention and {memory:.2f} times its memory" in text("README.md")


@pytest.mark.parametrize("path", RECORDS)
def test_no_record_names_a_folder_of_some_machine(path):
    assert not re.search(r"""(?<![^\s=,\["'])/\w+/""", text(path))


def results(domain: str):
    """(together, first run, number of runs) of each recipe of a domain; the first files did not say whose they are."""
    for file in RECORDS:
        if not file.startswith("docs/results/"):
            continue
        found = record(file)
        if found.get("domain", "vision") == domain:
            yield found["together"], found["runs"][0], len(found["runs"])


def test_the_recipes_scores_are_those_of_the_files():
    page = text("docs/vision.md")
    for together, first, runs in results("vision"):
        accuracy = together["accuracy"]
        spread = "" if accuracy["deviation"] is None else f" ± {100 * accuracy['deviation']:.1f}"
        numbers = f"| {100 * accuracy['mean']:.1f}{spread} % | {runs} | {first['parameters']:,} |"
        assert f"{numbers} {first['seconds']:,.0f} |" in page
    for row in record("benchmarks/vision.json")["rows"]:
        assert f"{row['time_ratio']:.2f}" in page


def test_the_returns_are_those_of_the_files():
    page = text("docs/rl.md")
    for together, first, runs in results("rl"):
        achieved = {name.split("/")[1]: value for name, value in together.items() if re.match("achieved/.*mean", name)}
        asked = max(achieved, key=lambda target: 0.0 if target == "mean" else float(target))  # "mean": none was asked
        mean, deviation = achieved[asked]["mean"], achieved[asked]["deviation"]
        spread = "" if deviation is None else f" ± {format_score(deviation)}"
        told = "–" if asked == "mean" else asked
        numbers = f"| {told} | {format_score(mean)}{spread} | {format_score(together['data_mean_return']['mean'])} |"
        assert f"{numbers} {runs} | {first['parameters']:,} | {first['seconds']:,.0f} |" in page
    for row in record("docs/rl_speed.json")["rows"]:
        assert f"| {row['what']} | {row['steps_per_second']:,.0f} | {row['times']:.1f} |" in page


def test_the_kills_are_those_of_the_file():
    found = record("docs/results/kills.json")["together"]
    page = text("docs/runs.md").replace("\n ", "")
    assert f"killed real processes {found['kills']} times" in page
    assert f"all {found['runs']} runs ended with the same weights" in page
    assert found["same"] == found["runs"]


def test_the_texts_figures_are_those_of_the_files():
    page = text("docs/text.md")
    for together, first, runs in results("text"):
        loss = together["loss"]
        spread = "" if loss["deviation"] is None else f" ± {loss['deviation']:.3f}"
        numbers = f"| {loss['mean']:.3f}{spread} | {runs} | {first['parameters']:,} |"
        assert f"{numbers} {first['seconds']:,.0f} |" in page
    for row in record("benchmarks/text_generation.json")["rows"]:
        speeds = " | ".join(f"{row['tokens_per_second'][name]:,.0f}" for name in ("transformers", "ours"))
        assert f"| {row['batch']} | {speeds} | {row['times']:.1f} |" in page
        assert row["same_tokens"]
    [large] = record("benchmarks/text_generation_large.json")["rows"]
    speeds = " and ".join(f"{large['tokens_per_second'][name]:.2f}" for name in ("transformers", "ours"))
    assert f"{speeds} tokens per second, {large['times']:.2f} times" in page
    assert large["same_tokens"]
    for row in record("benchmarks/text_blimp.json")["rows"]:
        shares = " | ".join(f"{share:.3f}" for share in (row["mean"], *row["shares"].values()))
        assert f"| {row['run']} | {shares} |" in page


def test_the_seconds_to_a_loss_are_those_of_the_file():
    page = text("docs/text.md")
    theirs, ours = record("benchmarks/text_seconds.json")["rows"]
    assert f"within {ours['steps']} of its 2,000 steps, in {ours['part']:.2f} of the seconds" in page
    step = [1000 * row["seconds"] / row["steps"] for row in (ours, theirs)]
    assert f"{step[0]:.0f} ms against {step[1]:.0f} ms a step" in page


def spread(value: dict[str, float | None]) -> str:
    """Mean and deviation; the mean alone of what no seed changes."""
    return f"{value['mean']:.3f}" + (f" ± {value['deviation']:.3f}" if value["deviation"] else "")


def test_the_precisions_are_those_of_the_files():
    page = text("docs/protein.md")
    found = record("docs/results/contacts.json")["together"]
    for method in {
        name.removesuffix(" P@L/5") for name in found if re.fullmatch(r".*(?<! short)(?<! medium) P@L/5", name)
    }:
        row = " | ".join(spread(found[f"{method} P@{cut}"]) for cut in CUTS)
        assert f"| {method} | {row} |" in page
    by_depth = record("docs/results/contacts_alignment.json")["together"]
    for method in ("model", "inverse covariance", "covariance"):
        parts = ("", *(f", Meff {depth}" for depth in ("< 30", "30-120", "> 120")))
        assert f"| {method} | {' | '.join(spread(by_depth[f'{method} P@L/5{part}']) for part in parts)} |" in page
    rows = record("benchmarks/protein.json")["rows"]
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
    page = text("docs/rl.md")
    found = record("docs/rl_online.json")
    rows = found["rows"]
    assert f"| round | {' | '.join(str(row['round']) for row in rows)} |" in page
    spread = [f"{format_score(row['mean'])} ± {format_score(row['deviation'])}" for row in rows]
    assert f"| mean return | {' | '.join(spread)} |" in page
    for run in found["runs"]:
        assert f"| seed {run['seed']} | {' | '.join(format_score(value) for value in run['returns'])} |" in page


def test_the_curve_of_contacts_is_that_of_the_file():
    page = text("docs/protein.md")
    found = record("docs/contacts_curve.json")
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
    rows = record("docs/plan.json")["rows"]
    page = text("docs/scaling.md")
    ratios = [row["planned"] / row["measured"] for row in rows]
    assert f"{len(rows)} real trainings" in page
    assert f"{min(ratios):.2f} to {max(ratios):.2f}" in page


def test_the_pages_of_figures_are_those_that_are_written():
    pages = runpy.run_path(str(ROOT / "benchmarks" / "pages.py"))
    assert pages["results"]() == text("docs/results.md")
    assert pages["performance"]() == text("docs/performance.md")
    told = {*re.findall(r"(?m)^\| `(?:domain|experiment)=(\w+)", text("docs/results.md"))} - {"sensors"}
    recipes = {path.stem for group in ("experiment", "domain") for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert told == recipes


def test_the_comparison_of_mixers_is_that_of_the_file():
    page = text("docs/compare.md")
    found = record("docs/mixers.json")
    for domain in found["domains"]:
        lines = [line for line in found["effects"] if line["domain"] == domain and line["seeds"]]
        cells = [f"{c['mean']:.4g} ± {c['deviation']:.2g}" + " *" * bool(c.get("sure")) for c in lines]
        assert f"| {domain} | {lines[0]['metric']} | {' | '.join(cells)} |" in page
    sure = [line for line in found["effects"] if line.get("sure")]
    assert len(sure) == len(found["verdicts"])
    assert all(f"{abs(line['percent']):.1f} %" in page for line in sure)


def test_the_defaults_of_text_and_proteins_are_those_of_the_files():
    bits = record("docs/results/text.json")["together"]["bits_per_byte"]
    assert f"| {bits['mean']:.3f} ± {bits['deviation']:.3f} |" in text("docs/text.md")
    found = record("docs/results/protein.json")["together"]
    score, page = found["model P@L/5"], text("docs/protein.md").replace("\n", " ")
    assert f"P@L/5 {score['mean']:.3f} ± {score['deviation']:.3f} on {found['chains']['mean']} others" in page
    for name in ("profile-pair log-odds", "separation prior"):
        assert f"{found[f'baseline/{name}']['mean']:.3f} of the" in page
