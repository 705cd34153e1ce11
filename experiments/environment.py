"""The environment of a measurement: machine, versions, commit and command."""

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
    """Return what a measurement depends on besides the configuration."""
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
    """Describe the computer: system, processor, cores, memory, and the threads in use."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone names its processor there
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {names[0] if names else platform.processor()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB; {threads} thread{'s' * (threads > 1)}"
    )


def command() -> str:
    """Return the command line without this machine's folders, since records are published. `attend train` removes the
    word `train` before it starts Hydra; it is put back."""
    program, *words = map(strip_folders, sys.argv)
    is_training = program == "attend" and words and "=" in words[0]
    return " ".join([program, *(["train"] if is_training else []), *map(quote, words)])


def strip_folders(word: str) -> str:
    """Shorten absolute paths in an argument to their last part: data.path=/home/me/a.txt to data.path=a.txt."""
    return re.sub(r"(?<![^\s=,\[('\"])/[^\s,\])'\"]*", lambda path: Path(path[0]).name, word)


def commit() -> str:
    """Return the git commit of this checkout ("-dirty" if it has changes), or "none" outside of a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or not which("git"):  # a repository further up is another project's
        return "none"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "none"
