"""`attend export`: a trained language model as a folder that transformers loads."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from core.config import PositionConfig
from experiments.runs import load_run, room, typed


def run(config: DictConfig) -> None:
    """Writes config.json, model.safetensors and, for subwords, the tokenizer to `config.output`.

    Raises:
        ValueError: for a run of another domain, or a model that transformers has no like of.
    """
    saved, adapter = load_run(config.run)
    if saved.domain.package != "domains.text":
        raise ValueError(f"run={config.run} is of domain={saved.domain.name}; only domain=text can be exported")
    position: PositionConfig = typed(PositionConfig, saved.position)
    for path in room(saved.domain.package, "export").export(adapter, position, Path(config.output)):
        Console().print(f"wrote {path}", highlight=False, soft_wrap=True)
