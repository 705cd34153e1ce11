"""`attend demo`: all four domains, trained, evaluated and explained on data that come with the installation."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from rich.progress import Progress, TaskID
from rich.table import Table

from experiments.compose import compose
from experiments.environment import environment
from experiments.evaluate import evaluate, figure
from experiments.explain import explained
from experiments.report.explorer import write_demo
from experiments.runs import write_json
from experiments.terminal import terminal
from experiments.train import train
from experiments.training.progress import make_progress

COLUMNS = ("domain", "metric", "result", "baseline", "data", "seconds", "parameters")


def run(config: DictConfig) -> None:
    """Writes results.json, index.html and a run folder for each domain into `config.output`."""
    output, began = Path(config.output), time.perf_counter()
    console = terminal()
    with make_progress(console) as progress:
        whole = progress.add_task("demo", total=3 * len(config.domains), note="")
        parts = [run_domain(name, config.seed, output / name, progress, whole) for name in config.domains]
    rows = [row for part in parts for row in part.rows]
    results = {
        "rows": rows,
        "total_seconds": round(time.perf_counter() - began, 1),
        "seed": config.seed,
        **environment(),
    }
    write_json(output / "results.json", results)
    lines = [cells(row) for row in rows]
    runs, figures = [part.explained for part in parts], [part.figures for part in parts]
    write_demo(output / "index.html", results, [list(COLUMNS), *lines], runs, figures)

    table = Table(*COLUMNS)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(f"wrote {output}/results.json and {output}/index.html in {results['total_seconds']:.0f} s")


class Part(NamedTuple):
    """What the demo shows of a domain: lines of the table, what lies in the explorer, pictures of the evaluation."""

    rows: list[dict[str, Any]]
    explained: dict[str, Any]
    figures: list[Path]


def run_domain(name: str, seed: int, folder: Path, progress: Progress, whole: TaskID) -> Part:
    """Train, evaluate and explain one domain."""
    config = compose("config", [f"domain={name}", f"seed={seed}", f"run={folder}", "logger=csv", "trainer.devices=1"])
    if (folder / "config.yaml").is_file():  # an earlier demo's run, not to be resumed
        shutil.rmtree(folder)
    summary = train(config, folder, progress)
    progress.advance(whole)
    with timed(progress, whole, f"{name}: evaluating"):
        evaluation = evaluate(folder, folder / "evaluate")
    with timed(progress, whole, f"{name}: explaining"):
        found = explained(folder)
    rows = [
        {
            "domain": name,
            "data": str(config.data.source.value),
            "metric": score.metric,
            "result": score.value,
            "baseline": score.baseline_value,
            "baseline_name": score.baseline,
            "seconds": summary["seconds"],
            "parameters": summary["parameters"],
        }
        for score in evaluation.scores
    ]
    return Part(rows, found, evaluation.figures[:1])


@contextmanager
def timed(progress: Progress, whole: TaskID, name: str) -> Iterator[None]:
    """A line of the progress for something whose end is not known beforehand."""
    bar, began = progress.add_task(name, total=None, note=""), time.perf_counter()
    yield
    progress.update(bar, total=1, completed=1, note=f"{time.perf_counter() - began:.0f} s")
    progress.advance(whole)


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the results as text, in the order of COLUMNS."""
    baseline = f"{figure(row['baseline'])} ({row['baseline_name']})"
    shown = {**row, "result": figure(row["result"]), "baseline": baseline}
    shown |= {"seconds": f"{row['seconds']:.0f}", "parameters": f"{row['parameters']:,}"}
    return [str(shown[column]) for column in COLUMNS]
