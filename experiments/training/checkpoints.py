"""The last two checkpoints of a run, written atomically, and the signals that end a run."""

import os
import shutil
import signal
import threading
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from experiments.guards import atomic_write
from experiments.training import sharded
from experiments.training.nonfinite import nonfinite

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class Checkpoints(Callback):
    """Write last.ckpt every few steps and after the last one; the earlier one becomes previous.ckpt.

    On Ctrl-C, SIGTERM and a scheduler's warning (SIGUSR1, SIGUSR2), finish the step, write last.ckpt, print how to
    resume, and exit with code 128 + the signal's number. A second Ctrl-C or SIGTERM ends the process at once.

    Args:
        folder: the run folder.
        every: steps between two checkpoints.
        print_line: prints a line for the user.
    Raises:
        ValueError: instead of keeping weights that are not finite.
    """

    def __init__(self, folder: Path, every: int, print_line: Callable[[str], Any]):
        self.run, self.last, self.every, self.print_line = folder, folder / "checkpoints" / LAST, every, print_line
        self.saved, self.signal_number = 0, 0  # saved: a step

    def on_train_start(self, trainer, pl_module):
        self.saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # Lightning restores the earlier handlers
                signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer, pl_module: Any, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of a step
        step, stop = trainer.global_step, bool(self.signal_number)
        if trainer.world_size > 1:  # all of them stop; on GPUs they agree in steps in which the host waits anyway
            stop = pl_module.reads_loss(pl_module.device) and trainer.strategy.reduce_boolean_decision(stop, all=False)
        if step != self.saved and (stop or step % self.every == 0 or step == trainer.max_steps):
            self._save(trainer, pl_module)
        if stop and step < trainer.max_steps:
            if trainer.is_global_zero:
                self.print_line(f"stopped after step {step}; to go on: attend train run={self.run}")
            raise SystemExit(128 + (self.signal_number or signal.SIGTERM))

    def on_validation_end(self, trainer, pl_module):
        _flush(trainer)

    def _save(self, trainer, pl_module) -> None:
        pl_module.check_losses()
        if names := nonfinite(pl_module.adapter.named_parameters()):
            raise ValueError(
                f"after step {trainer.global_step} {names} are not finite; lower optimizer.lr. The last checkpoint is "
                f"that of step {self.saved}"
            )
        _flush(trainer)
        self.saved = trainer.global_step
        with atomic_write(self.last) if trainer.is_global_zero else nullcontext(self.last) as new:
            trainer.save_checkpoint(new)  # all ranks take part; rank 0's path counts
            if trainer.is_global_zero and self.last.exists():
                previous = self.last.with_name(PREVIOUS)
                if previous.is_dir():
                    shutil.rmtree(previous)
                os.replace(self.last, previous)

    def _on_signal(self, number, _) -> None:
        self.signal_number = number
        if number in (signal.SIGUSR1, signal.SIGUSR2):
            return  # the scheduler's SIGTERM follows, and must not end the process at once
        for signal_ in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_, signal.SIG_DFL)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last intact checkpoint of a run, or None if the run has no checkpoint.

    Raises:
        ValueError: if the run has checkpoints, and none is intact.
    """
    checkpoints = list_checkpoints(folder)
    for path in checkpoints:
        if is_intact(path):
            return path
        warnings.warn(f"{path} is damaged: it was cut short or changed, and is left aside", stacklevel=2)
    if checkpoints:
        raise ValueError(f"no checkpoint in {folder} is whole; give another run=… for a new run")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run folder, the last one first."""
    return [path for name in (LAST, PREVIOUS) if (path := folder / "checkpoints" / name).exists()]


def read_last_weights(folder: Path) -> dict[str, Tensor]:
    """Read the model's weights from a run's last intact checkpoint. Raises ValueError if there is none."""
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint")
    if checkpoint.is_dir():
        return sharded.read_sharded_weights(checkpoint)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("adapter."): weight for name, weight in state.items() if name.startswith("adapter.")}


def is_intact(path: Path) -> bool:
    """Return whether a checkpoint's checksums match and it holds only data.

    A sharded checkpoint, a folder, has no checksums; its files must have the lengths of its index.
    """
    try:
        if path.is_dir():
            return sharded.is_intact(path)
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return False
        return "global_step" in torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # damaged bytes make zipfile, zlib and pickle raise nearly anything
        return False


def _flush(trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
