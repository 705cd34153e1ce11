"""Guards around a run folder: atomic writes, one writer at a time, models of a bounded size."""

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
    """Yield a temporary path to write a file or folder to; rename it to `path` once it is complete and on disk.

    After a kill or a power cut `path` holds all of the new file or all of the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.unfinished")
    try:
        yield new
        _fsync(new)
        os.replace(new, path)
        _fsync(path.parent)
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        new.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    for part in path.iterdir() if path.name.endswith(".unfinished") and path.is_dir() else ():
        _fsync(part)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run folder against other writers. The lock ends with its process, however that ends.

    A record lock, because data workers would inherit a flock and hold it for some seconds after a run is killed.

    Raises:
        ValueError: if another process holds the lock.
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
            if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing was written
                shutil.rmtree(folder)
            raise


class AllocationLimit(TorchFunctionMode):
    """Limit the tensors that are allocated in this context to about the size of a weights file.

    So a configuration with huge sizes cannot fill the memory before it is compared with the weights.

    Raises:
        ValueError: before an allocation beyond the limit.
    """

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye)
    MAKERS += (torch.arange, torch.linspace)

    def __init__(self, values: int):
        super().__init__()
        self.left = 4 * values + 2**24  # position tables and temporaries

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.MAKERS:
            given = (*args, *(kwargs or {}).values())
            sizes = next((x for x in given if isinstance(x, tuple | list)), given)
            self.left -= prod(abs(n) for n in sizes if isinstance(n, int) and n)
            if self.left < 0:
                raise ValueError("config.yaml and spec.json ask for a larger model than weights.safetensors holds")
        return func(*args, **(kwargs or {}))
