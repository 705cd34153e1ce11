"""The run folder: what a training writes, and how everything else reads it back. No pickle is ever opened.

config.yaml            what was composed, with nothing left to interpolate
spec.json              what the model knows of its data (classes, sizes, statistics)
weights.safetensors    the trained weights
summary.json           how it went
metrics.csv            the curves
checkpoints/           last.ckpt and previous.ckpt, to resume from: `attend train run=FOLDER`
"""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from math import prod
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from core.config import PositionConfig
from domains.adapter import DomainAdapter
from domains.data import DomainData
from experiments.foreign import check_package, read_config, read_spec
from experiments.overrides import escape


def room(package: str, name: str) -> Any:
    """A module of a domain's package, such as its `adapter`.

    Raises:
        ValueError: if there is none, or the package is no domain.
    """
    check_package(package)
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
    data.setup()
    return data


def make_adapter(config: DictConfig, spec: dict[str, Any]) -> DomainAdapter:
    """The untrained model that a configuration names, for data of this spec."""
    package = config.domain.package
    model = typed(room(package, "config").ModelConfig, config.model)
    return room(package, "adapter").Adapter(model, typed(PositionConfig, config.position), spec)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name to write a file or a folder under; it becomes `path` when it is whole and on the disk.

    Whoever opens `path`, after a kill or a power cut too, finds all of the new file or all of the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.unfinished")
    try:
        yield new
        _to_disk(new)
        os.replace(new, path)
        _to_disk(path.parent)
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        new.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    for part in path.iterdir() if path.name.endswith(".unfinished") and path.is_dir() else ():
        _to_disk(part)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """No other process writes this run folder meanwhile. The lock goes with its process, however that ends.

    A record lock, for data workers would inherit one of flock, and outlive a killed run with it for some seconds.

    Raises:
        ValueError: if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f"another process is training in {folder}; wait for its end, or give another run=…"
            ) from error
        try:
            yield
        except BaseException:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing came of it
                shutil.rmtree(folder)
            raise


def write_config(folder: Path, config: DictConfig, spec: dict[str, Any]) -> None:
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    with written(folder / "config.yaml") as new:
        new.write_text(OmegaConf.to_yaml(OmegaConf.create(_as_text(plain))), encoding="utf-8")
    write_json(folder / "spec.json", spec)


def _as_text(value: Any) -> Any:
    """Values in which `${` is written so that it stays text."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value


def write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    with written(folder / "weights.safetensors") as new:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, new)
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o666 & ~mask)  # safetensors lets nobody else read it; whom the folder is for, its owner has said


def load_run(folder: str | Path) -> tuple[DictConfig, DomainAdapter]:
    """The configuration and the trained model of a run folder, on the best device of this machine.

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
        with Allowance(sum(weight.numel() for weight in weights.values())):
            adapter = make_adapter(config, spec)
        adapter.load_state_dict(weights)
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        lines = str(error).splitlines() or [repr(error)]
        why = lines[-1 if isinstance(error, RuntimeError) else 0].strip()  # torch says first what it was about to do
        raise ValueError(f"the weights in {folder} do not fit its config.yaml and spec.json: {why}") from error
    return config, adapter.to(best_device()).eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Raises ValueError if weights.safetensors is none, or cut short."""
    try:
        return load_file(folder / "weights.safetensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder}/weights.safetensors is damaged, or no such file: {error}") from error


class Allowance(TorchFunctionMode):
    """A model that is made here may hold about as many values as its file of weights, and no more.

    So sizes that someone wrote into a configuration do not fill the memory before they are compared with the weights.

    Raises:
        ValueError: before what would be too much is made.
    """

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye)
    MAKERS += (torch.arange, torch.linspace)

    def __init__(self, values: int):
        super().__init__()
        self.left = 4 * values + 2**24  # tables of positions, and what is made and thrown away

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.MAKERS:
            given = (*args, *(kwargs or {}).values())
            sizes = next((x for x in given if isinstance(x, tuple | list)), given)
            self.left -= prod(abs(n) for n in sizes if isinstance(n, int) and n)
            if self.left < 0:
                raise ValueError("config.yaml and spec.json ask for a larger model than weights.safetensors holds")
        return func(*args, **(kwargs or {}))


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
        "machine": machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": {name: version(name) for name in packages},
        "commit": commit(),
        "command": command(),
    }


def machine() -> str:
    """The computer, as far as a timing depends on it: system, processor, cores, memory, and the threads in use."""
    told = Path("/proc/cpuinfo")  # Linux alone names its processor there
    names = re.findall(r"model name\s*: (.*)", told.read_text()) if told.is_file() else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {names[0] if names else platform.processor()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB; {threads} thread{'s' * (threads > 1)}"
    )


def command() -> str:
    """What was typed, files without the folders of this machine: records are published, and a run's own config.yaml has
    its paths. The command line hands a training over to Hydra without the word for it."""
    program, *words = map(without_folders, sys.argv)
    begun = program == "attend" and words and "=" in words[0]
    return " ".join([program, *(["train"] if begun else []), *map(quote, words)])


def without_folders(word: str) -> str:
    """A word of a command line, its absolute paths shortened to their last part: data.path=/home/me/a.txt to
    data.path=a.txt."""
    return re.sub(r"(?<![^\s=,\[('\"])/[^\s,\])'\"]*", lambda path: Path(path[0]).name, word)


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

    with written(path) as new:
        new.write_text(json.dumps(value, indent=2, default=plain) + "\n")


def typed(kind: type, values: DictConfig) -> Any:
    """Configuration values as the dataclass that describes them."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
