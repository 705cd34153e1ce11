"""The run folder: written by a training, read by all other commands. No pickle is opened.

config.yaml            the composed configuration, fully resolved
spec.json              facts about the data that the model needs (classes, sizes, statistics)
weights.safetensors    the trained weights
summary.json           results and costs
metrics.csv            the training curves
checkpoints/           last.ckpt and previous.ckpt, to resume from: `attend train run=FOLDER`
"""

import json
import os
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.config import PositionConfig
from domains.adapter import DomainAdapter
from domains.data import DomainData
from experiments.environment import best_device
from experiments.guards import AllocationLimit, atomic_write
from experiments.overrides import escape
from experiments.untrusted import load_domain, read_config, read_spec


def make_data(config: DictConfig) -> DomainData:
    """Return the data of a configuration, set up."""
    domain = load_domain(config.domain.package)
    data = domain.data(to_dataclass(domain.data_config, config.data), config.seed)
    data.setup()
    return data


def make_adapter(config: DictConfig, spec: dict[str, Any]) -> DomainAdapter:
    """Return the untrained model of a configuration, for data of this spec."""
    domain = load_domain(config.domain.package)
    return domain.adapter(
        to_dataclass(domain.model_config, config.model), to_dataclass(PositionConfig, config.position), spec
    )


def write_config(folder: Path, config: DictConfig, spec: dict[str, Any]) -> None:
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    with atomic_write(folder / "config.yaml") as new:
        new.write_text(OmegaConf.to_yaml(OmegaConf.create(_escape_interpolations(plain))), encoding="utf-8")
    write_json(folder / "spec.json", spec)


def _escape_interpolations(value: Any) -> Any:
    """Escape `${` in all values, so that it stays text."""
    if isinstance(value, dict):
        return {key: _escape_interpolations(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escape_interpolations(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value


def write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    with atomic_write(folder / "weights.safetensors") as new:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, new)
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o666 & ~mask)  # safetensors makes it private; the umask decides instead


def load_run(folder: str | Path) -> tuple[DictConfig, DomainAdapter]:
    """Load the configuration and the trained model of a run folder, on the best device of this machine.

    Raises:
        ValueError: if the folder is no finished run, or its weights do not fit its configuration.
    """
    folder = Path(folder)
    for name in ("config.yaml", "spec.json", "weights.safetensors"):
        if not (folder / name).is_file():
            begun = any((folder / "checkpoints").glob("*.ckpt"))
            hint = f"attend train run={folder} goes on with it" if begun else "attend train writes one"
            raise ValueError(f"{folder} is no finished run: it has no {name} ({hint})")
    config, spec, weights = read_config(folder), read_spec(folder), read_weights(folder)
    try:
        with AllocationLimit(sum(weight.numel() for weight in weights.values())):
            adapter = make_adapter(config, spec)
        adapter.load_state_dict(weights)
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        lines = str(error).splitlines() or [repr(error)]
        why = lines[-1 if isinstance(error, RuntimeError) else 0].strip()  # torch says first what it was about to do
        raise ValueError(f"the weights in {folder} do not fit its config.yaml and spec.json: {why}") from error
    return config, adapter.to(best_device()).eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read weights.safetensors. Raises ValueError if it is missing or damaged."""
    try:
        return load_file(folder / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder}/weights.safetensors is damaged, or no such file: {error}") from error


def write_json(path: Path, value: Any) -> None:
    def plain(thing):
        if isinstance(thing, Enum):
            return thing.value
        return thing.item() if hasattr(thing, "item") else str(thing)

    with atomic_write(path) as new:
        new.write_text(json.dumps(value, indent=2, default=plain) + "\n")


def to_dataclass(kind: type, values: DictConfig) -> Any:
    """Convert configuration values to the dataclass that describes them."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
