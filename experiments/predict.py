"""`attend predict`: apply a trained run to a user's own input."""

from pathlib import Path

from omegaconf import DictConfig

from domains.data_warnings import record_data_warnings
from experiments.environment import environment
from experiments.runs import load_run, write_json
from experiments.terminal import terminal, waiting
from experiments.untrusted import load_domain


def run(config: DictConfig) -> None:
    with waiting("predicting …"):
        saved, adapter = load_run(config.run)
        predict, folder = load_domain(saved.domain.package).predict, Path(config.output)
        with record_data_warnings() as data_warnings:
            written = predict(adapter, config.input, folder)
        summary = {"run": config.run, "input": config.input, "data_warnings": data_warnings, **environment()}
        write_json(folder / "summary.json", summary)
    for path in [*written, folder / "summary.json"]:
        terminal().print(f"wrote {path}")
