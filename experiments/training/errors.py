"""Errors of a training as one sentence that says what to do."""

import errno
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import SafetensorError

from domains.data import DomainData
from domains.data_warnings import listed

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUT_OF_MEMORY = (
    "the device is out of memory; lower data.batch_size, and raise trainer.accumulate_grad_batches by as much for the "
    "same steps; or lower data.context, data.crop_size or model.dim"
)


@contextmanager
def translate_errors(folder: Path, data: DomainData) -> Iterator[None]:
    """Raise ValueError for a full disk, a device out of memory, and data that a worker cannot read.

    Give Lightning's own exits, for signals outside of the steps, the exit codes that a shell expects.
    """
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(128 + signal.SIGTERM) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise SystemExit(128 + signal.SIGINT) from error
        raise
    except torch.OutOfMemoryError as error:
        raise ValueError(OUT_OF_MEMORY) from error
    except (OSError, SafetensorError) as error:
        if _errno(error) not in DISK_FULL:
            raise
        raise ValueError(
            f"the disk of {folder} is full ({error}); make room, then attend train run={folder} goes on from the last "
            "checkpoint"
        ) from error
    except RuntimeError as error:
        if (text := _dead_worker(error, data)) is None:
            raise
        raise ValueError(text) from error
    except ValueError as error:  # from a worker, with its traceback
        if "Original Traceback" not in str(error):
            raise
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


def _errno(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"os error (\d+)", str(error))
    return int(match[1]) if match else None


def _dead_worker(error: RuntimeError, data: DomainData) -> str | None:
    """Explain how a data worker died, and on which samples; None for any other error."""
    match = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error))
    if match is None:
        return None
    processes = [int(process) for process in match[1].split(",")]
    samples = [
        listed(dataset.indices(step))
        for dataset in data.step_datasets
        for process in processes
        if (step := dataset.progress.step_of(process)) is not None
    ]
    context = (
        f"while it read the samples {'; '.join(samples)} of the training split" if samples else "between two batches"
    )
    return (
        f"a data worker died {context} ({match[2].strip()}); a file there may be damaged, or the memory too small for "
        "data.workers: lower it"
    )
