"""`attend export`: a trained model as a folder that transformers loads; the weights of a run that was stopped."""

from pathlib import Path

from omegaconf import DictConfig

from core.config import PositionConfig
from experiments.runs import load_run, typed, write_weights
from experiments.terminal import terminal
from experiments.training.checkpoints import kept, last_weights
from experiments.untrusted import load_domain


def run(config: DictConfig) -> None:
    """Writes config.json, model.safetensors and what else a domain has to say to `config.output`.

    Of a run that has not come to its end, the weights of its last checkpoint are first written into its folder.

    Raises:
        ValueError: for a run of a domain that has no export, or a model that transformers has no like of.
    """
    console, folder = terminal(), Path(config.run)
    unfinished = not (folder / "weights.safetensors").exists() and kept(folder)
    if unfinished:
        write_weights(folder, last_weights(folder))
        console.print(f"wrote {folder}/weights.safetensors, of its last checkpoint")
    saved, adapter = load_run(folder)
    export = load_domain(saved.domain.package).export
    if export is None:
        if unfinished:
            return
        raise ValueError(f"run={config.run} is of domain={saved.domain.name}; possible: domain=text, domain=rl")
    position: PositionConfig = typed(PositionConfig, saved.position)
    for path in export(adapter, position, Path(config.output)):
        console.print(f"wrote {path}")
