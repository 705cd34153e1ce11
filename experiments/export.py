"""`attend export`: write a trained model as a folder that transformers loads, or the weights of a stopped run."""

from pathlib import Path

from omegaconf import DictConfig

from core.config import PositionConfig
from experiments.console import make_console
from experiments.runs import load_run, to_dataclass, write_weights
from experiments.training.checkpoints import list_checkpoints, read_last_weights
from experiments.untrusted import load_domain


def run(config: DictConfig) -> None:
    """Write config.json, model.safetensors and the domain's other files to `config.output`.

    For an unfinished run, first write the weights of its last checkpoint into its folder.

    Raises:
        ValueError: for a run of a domain without export, or a model that transformers cannot represent.
    """
    console, folder = make_console(), Path(config.run)
    unfinished = not (folder / "weights.safetensors").exists() and list_checkpoints(folder)
    if unfinished:
        write_weights(folder, read_last_weights(folder))
        console.print(f"wrote {folder}/weights.safetensors, of its last checkpoint")
    saved, adapter = load_run(folder)
    export = load_domain(saved.domain.package).export
    if export is None:
        if unfinished:
            return
        raise ValueError(f"run={config.run} is of domain={saved.domain.name}; possible: domain=text, domain=rl")
    position: PositionConfig = to_dataclass(PositionConfig, saved.position)
    for path in export(adapter, position, Path(config.output)):
        console.print(f"wrote {path}")
