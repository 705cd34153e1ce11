"""`attend predict`: apply a trained run to a user's own input."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from experiments.runs import load_run, room
from experiments.waiting import waiting


def run(config: DictConfig) -> None:
    with waiting("predicting …"):
        saved, adapter = load_run(config.run)
        predict = room(saved.domain.package, "predict").predict
        written = predict(adapter, config.input, Path(config.output))
    for path in written:
        Console().print(f"wrote {path}", highlight=False, soft_wrap=True)
