"""`attend predict`: apply a trained run to new input."""

from pathlib import Path

from omegaconf import DictConfig

from domains.data_warnings import record_data_warnings
from experiments.console import make_console, spinner
from experiments.environment import environment
from experiments.runs import load_run, write_json
from experiments.untrusted import load_domain


def run(config: DictConfig) -> None:
    with spinner("predicting …"):
        config_of_run, adapter = load_run(config.run)
        predict, folder = load_domain(config_of_run.domain.package).predict, Path(config.output)
        with record_data_warnings() as data_warnings:
            paths = predict(adapter, config.input, folder)
        summary = {"run": config.run, "input": config.input, "data_warnings": data_warnings, **environment()}
        write_json(folder / "summary.json", summary)
    for path in [*paths, folder / "summary.json"]:
        make_console().print(f"wrote {path}")
