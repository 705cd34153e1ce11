"""`attend evaluate`: score a trained run on held-out data."""

from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from domains.adapter import Evaluation
from domains.data_warnings import record_data_warnings
from experiments.config import EvaluateConfig
from experiments.console import make_console, spinner
from experiments.environment import environment
from experiments.runs import load_run, make_data, write_json
from experiments.untrusted import load_domain


def run(config: DictConfig | EvaluateConfig) -> None:
    folder = Path(config.output)
    with spinner("evaluating …"):
        evaluation = evaluate(Path(config.run), folder, config.split, flips=config.flips)
    console = make_console()
    table = Table("metric", "result", "baseline", "its result")
    for score in evaluation.scores:
        table.add_row(score.metric, format_score(score.value), score.baseline, format_score(score.baseline_value))
    console.print(table)
    names = ", ".join(["summary.json", *(path.name for path in evaluation.figures)])
    console.print(f"wrote {folder}: {names}")


def evaluate(run_folder: Path, folder: Path, split: str = "test", **options: bool) -> Evaluation:
    """Evaluate a run as its domain defines it, and write figures, tables and summary.json to `folder`.

    Args:
        options: switches of the domain's evaluation; one that is off may be unknown to it.
    Raises:
        ValueError: if the run is not finished, or the split or an option is unknown.
    """
    config, adapter = load_run(run_folder)
    domain, enabled = load_domain(config.domain.package), {name: True for name, on in options.items() if on}
    if unknown := enabled.keys() - {*domain.evaluate_options}:
        possible = ", ".join(domain.evaluate_options) or "none"
        raise ValueError(
            f"{unknown.pop()}=true is no option of evaluating domain={config.domain.name}; possible: {possible}"
        )
    with record_data_warnings() as data_warnings:
        data = make_data(config)
        data.eval_dataloader(split)  # complains of an unknown split before anything is written
        evaluation = domain.evaluate(adapter, data, folder, split, **enabled)
    write_json(
        folder / "summary.json",
        {
            "run": str(run_folder),
            "split": split,
            "scores": [score._asdict() for score in evaluation.scores],
            "metrics": evaluation.metrics,
            "data_warnings": data_warnings,
            **environment(),
        },
    )
    return evaluation


def format_score(value: float) -> str:
    """Format a score for a table."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
