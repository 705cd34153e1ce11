"""`attend predict`: apply a trained run to a user's own input."""

from pathlib import Path

from omegaconf import DictConfig

from experiments.runs import load_run, room
from experiments.terminal import terminal, waiting


def run(config: DictConfig) -> None:
    with waiting("predicting …"):
        saved, adapter = load_run(config.run)
        predict = room(saved.domain.package, "predict").predict
        written = predict(adapter, config.input, Path(config.output))
    for path in written:
        terminal().print(f"wrote {path}")
