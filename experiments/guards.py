"""Guards around a run folder: files that are whole or not there, one writer at a time, models of a bounded size."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
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
def run_lock(folder: Path) -> Iterator[None]:
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


class AllocationLimit(TorchFunctionMode):
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
