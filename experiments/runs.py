"""The run folder: what a training writes, and how everything else reads it back. No pickle is ever opened.

config.yaml            what was composed, with nothing left to interpolate
spec.json              what the model knows of its data (classes, sizes, statistics)
weights.safetensors    the trained weights
summary.json           how it went
metrics.csv            the curves
checkpoints/last.ckpt  to resume from: `attend train run=FOLDER`
"""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from core.config import PositionConfig
from domains.adapter import DomainAdapter
from domains.data import DomainData


def room(package: str, name: str) -> Any:
    """A module of a domain's package, such as its `adapter`.

    Raises:
        ValueError: if there is none.
    """
    try:
        return import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name and f"{package}.{name}".startswith(error.name):
            raise ValueError(f"the domain package {package!r} has no module {name!r}") from error
        raise


def make_data(config: DictConfig) -> DomainData:
    """The data that a configuration names, ready to use."""
    package = config.domain.package
    data = room(package, "data").Data(typed(room(package, "config").DataConfig, config.data), config.seed)
    data.prepare_data()
    data.setup()
    return data


def make_adapter(config: DictConfig, spec: dict[str, Any]) -> DomainAdapter:
    """The untrained model that a configuration names, for data of this spec."""
    package = config.domain.package
    model = typed(room(package, "config").ModelConfig, config.model)
    return room(package, "adapter").Adapter(model, typed(PositionConfig, config.position), spec)


def write_config(folder: Path, config: DictConfig, spec: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    write_json(folder / "spec.json", spec)


def write_weights(folder: Path, adapter: DomainAdapter) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")


def load_run(folder: str | Path) -> tuple[DictConfig, DomainAdapter]:
    """The configuration and the trained model of a run folder, on the best device of this machine.

    Raises:
        ValueError: if the folder is no finished run, or its weights do not fit its configuration.
    """
    folder = Path(folder)
    for name in ("config.yaml", "spec.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is no finished run: it has no {name} (attend train writes one)")
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    adapter = make_adapter(config, json.loads((folder / "spec.json").read_text()))
    try:
        adapter.load_state_dict(load_file(folder / "weights.safetensors"))
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {folder} do not fit its config.yaml: {str(error).splitlines()[-1].strip()}"
        ) from error
    return config, adapter.to(best_device()).eval()


def best_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def environment() -> dict[str, Any]:
    """What a figure depends on beside the configuration."""
    packages = ("torch", "lightning", "hydra-core", "timm", "gymnasium", "biopython", "numpy", "scikit-learn")
    device = best_device()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {name: version(name) for name in packages},
        "commit": commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def commit() -> str:
    """Which state of this checkout is running, as git names it ("-dirty": with changes); none if it is no checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or not which("git"):  # what lies further up is somebody else's
        return "none"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "none"


def write_json(path: Path, value: Any) -> None:
    def plain(thing):
        if isinstance(thing, Enum):
            return thing.value
        return thing.item() if hasattr(thing, "item") else str(thing)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, default=plain) + "\n")


def typed(kind: type, values: DictConfig) -> Any:
    """Configuration values as the dataclass that describes them."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
