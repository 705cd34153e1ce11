"""The environment that a figure depends on: machine, versions, commit and command."""

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Any

import torch


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
