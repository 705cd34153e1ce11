"""`attend evaluate`: score a trained run on data that it was not trained on."""

from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from domains.adapter import Evaluation
from domains.data_warnings import record_data_warnings
from experiments.config import EvaluateConfig
from experiments.environment import environment
from experiments.runs import load_run, make_data, write_json
from experiments.terminal import terminal, waiting
from experiments.untrusted import load_domain


def run(config: DictConfig | EvaluateConfig) -> None:
    folder = Path(config.output)
    with waiting("evaluating …"):
        evaluation = evaluate(Path(config.run), folder, config.split, flips=config.flips)
    console = terminal()
    table = Table("metric", "result", "baseline", "its result")
    for score in evaluation.scores:
        table.add_row(score.metric, figure(score.value), score.baseline, figure(score.baseline_value))
    console.print(table)
    written = ", ".join(["summary.json", *(path.name for path in evaluation.figures)])
    console.print(f"wrote {folder}: {written}")


def evaluate(run_folder: Path, folder: Path, split: str = "test", **options: bool) -> Evaluation:
    """The domain's own evaluation of a run; figures, tables and summary.json go to `folder`.

    Args:
        options: switches of the domain's own; those that are off need not be known to it.
    Raises:
        ValueError: if the run is not finished, the split unknown, or an option none of the domain's.
    """
    config, adapter = load_run(run_folder)
    domain, chosen = load_domain(config.domain.package), {name: True for name, on in options.items() if on}
    if unknown := chosen.keys() - {*domain.evaluate_options}:
        possible = ", ".join(domain.evaluate_options) or "none"
        raise ValueError(
            f"{unknown.pop()}=true is no option of evaluating domain={config.domain.name}; possible: {possible}"
        )
    with record_data_warnings() as data_warnings:
        data = make_data(config)
        data.eval_dataloader(split)  # complains of an unknown split before anything is written
        evaluation = domain.evaluate(adapter, data, folder, split, **chosen)
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


def figure(value: float) -> str:
    """A number as a table shows it."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
