"""`attend demo`: all four domains, trained, evaluated and pictured on data that come with the installation."""

import shutil
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.compose import compose
from experiments.evaluate import evaluate, figure
from experiments.progress import make_progress
from experiments.report.page import write_page
from experiments.runs import environment, write_json
from experiments.train import train

COLUMNS = ("domain", "data", "metric", "result", "baseline", "seconds", "parameters")


def run(config: DictConfig) -> None:
    """Writes results.json, index.html and a run folder for each domain into `config.output`."""
    output, began = Path(config.output), time.perf_counter()
    console = Console()
    if not console.is_terminal:  # a log has no edge that a table must fit
        console.width = 160
    rows, pictures = [], {}
    with make_progress(console) as progress:
        whole = progress.add_task("demo", total=2 * len(config.domains), note="")
        for name in config.domains:
            found, pictures[name] = run_domain(name, config.seed, output / name, progress, whole)
            rows += found
    results = {
        "rows": rows,
        "total_seconds": round(time.perf_counter() - began, 1),
        "seed": config.seed,
        **environment(),
    }
    write_json(output / "results.json", results)
    lines = [cells(row) for row in rows]
    write_page(output / "index.html", results, [list(COLUMNS), *lines], pictures)

    table = Table(*COLUMNS)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(
        f"wrote {output}/results.json and {output}/index.html in {results['total_seconds']:.0f} s", highlight=False
    )


def run_domain(
    name: str, seed: int, folder: Path, progress: Progress, whole
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Train and evaluate one domain. Returns its rows of the table and its pictures."""
    config = compose("config", [f"domain={name}", f"seed={seed}", f"run={folder}", "logger=csv", 'trainer.devices="1"'])
    if (folder / "config.yaml").is_file():  # an earlier demo's run, not to be resumed
        shutil.rmtree(folder)
    summary = train(config, folder, progress)
    progress.advance(whole)

    bar = progress.add_task(f"{name}: evaluating", total=None, note="")
    began = time.perf_counter()
    evaluation = evaluate(folder, folder / "evaluate")
    progress.update(bar, total=1, completed=1, note=f"{time.perf_counter() - began:.0f} s")
    progress.advance(whole)
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
    return rows, evaluation.figures[:1]


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the results as text, in the order of COLUMNS."""
    baseline = f"{figure(row['baseline'])} ({row['baseline_name']})"
    shown = {**row, "result": figure(row["result"]), "baseline": baseline}
    shown |= {"seconds": f"{row['seconds']:.0f}", "parameters": f"{row['parameters']:,}"}
    return [str(shown[column]) for column in COLUMNS]
