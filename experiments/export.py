"""`attend export`: a trained model as a folder that transformers loads."""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from core.config import PositionConfig
from experiments.runs import load_run, room, typed


def run(config: DictConfig) -> None:
    """Writes config.json, model.safetensors and what else a domain has to say to `config.output`.

    Raises:
        ValueError: for a run of a domain without a room for it, or a model that transformers has no like of.
    """
    saved, adapter = load_run(config.run)
    if not find_spec(f"{saved.domain.package}.export"):
        raise ValueError(f"run={config.run} is of domain={saved.domain.name}; possible: domain=text, domain=rl")
    position: PositionConfig = typed(PositionConfig, saved.position)
    for path in room(saved.domain.package, "export").export(adapter, position, Path(config.output)):
        Console().print(f"wrote {path}", highlight=False, soft_wrap=True)
