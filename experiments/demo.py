"""`attend demo`: train, evaluate and explain all four domains on data that come with the installation."""

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
from experiments.console import make_console
from experiments.environment import environment
from experiments.evaluate import evaluate, format_score
from experiments.explain import explain_run
from experiments.report.explorer import write_demo
from experiments.runs import write_json
from experiments.train import train
from experiments.training.progress import make_progress

COLUMNS = ("domain", "metric", "result", "baseline", "data", "seconds", "parameters")


def run(config: DictConfig) -> None:
    """Write results.json, index.html and a run folder for each domain to `config.output`."""
    output, started = Path(config.output), time.perf_counter()
    console = make_console()
    with make_progress(console) as progress:
        total_task = progress.add_task("demo", total=3 * len(config.domains), note="")
        domain_results = [run_domain(name, config.seed, output / name, progress, total_task) for name in config.domains]
    rows = [row for result in domain_results for row in result.rows]
    results = {
        "rows": rows,
        "total_seconds": round(time.perf_counter() - started, 1),
        "seed": config.seed,
        **environment(),
    }
    write_json(output / "results.json", results)
    table_rows = [table_row(row) for row in rows]
    runs, figures = [result.explanation for result in domain_results], [result.figures for result in domain_results]
    write_demo(output / "index.html", results, [list(COLUMNS), *table_rows], runs, figures)

    table = Table(*COLUMNS)
    for line in table_rows:
        table.add_row(*line)
    console.print(table)
    console.print(f"wrote {output}/results.json and {output}/index.html in {results['total_seconds']:.0f} s")


class DomainResult(NamedTuple):
    """The demo's results of one domain: rows of the table, data of the explorer, figures of the evaluation."""

    rows: list[dict[str, Any]]
    explanation: dict[str, Any]
    figures: list[Path]


def run_domain(name: str, seed: int, folder: Path, progress: Progress, total_task: TaskID) -> DomainResult:
    """Train, evaluate and explain one domain."""
    config = compose("config", [f"domain={name}", f"seed={seed}", f"run={folder}", "logger=csv", "trainer.devices=1"])
    if (folder / "config.yaml").is_file():  # an earlier demo's run, not to be resumed
        shutil.rmtree(folder)
    summary = train(config, folder, progress)
    progress.advance(total_task)
    with timed_task(progress, total_task, f"{name}: evaluating"):
        evaluation = evaluate(folder, folder / "evaluate")
    with timed_task(progress, total_task, f"{name}: explaining"):
        explanation = explain_run(folder)
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
    return DomainResult(rows, explanation, evaluation.figures[:1])


@contextmanager
def timed_task(progress: Progress, total_task: TaskID, name: str) -> Iterator[None]:
    """Show a task of unknown length in the progress, and its seconds at the end."""
    bar, started = progress.add_task(name, total=None, note=""), time.perf_counter()
    yield
    progress.update(bar, total=1, completed=1, note=f"{time.perf_counter() - started:.0f} s")
    progress.advance(total_task)


def table_row(row: dict[str, Any]) -> list[str]:
    """Format a row of the results as text, in the order of COLUMNS."""
    baseline = f"{format_score(row['baseline'])} ({row['baseline_name']})"
    texts = {**row, "result": format_score(row["result"]), "baseline": baseline}
    texts |= {"seconds": f"{row['seconds']:.0f}", "parameters": f"{row['parameters']:,}"}
    return [str(texts[column]) for column in COLUMNS]
