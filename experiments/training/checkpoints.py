"""What a run needs to go on: the last two checkpoints, each whole or not there at all."""

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
LAST, BEFORE = "last.ckpt", "previous.ckpt"


class Checkpoints(Callback):
    """Writes last.ckpt every so many steps and after the last one; the one before it becomes previous.ckpt.

    On Ctrl-C, SIGTERM and a scheduler's warning (SIGUSR1, SIGUSR2) it lets the step come to its end, writes last.ckpt,
    says how to go on, and leaves with exit code 128 + the signal's number. A second Ctrl-C or SIGTERM ends the process
    at once.

    Args:
        folder: the run folder.
        every: steps between two checkpoints.
        say: prints a sentence.
    Raises:
        ValueError: instead of keeping weights that are not finite.
    """

    def __init__(self, folder: Path, every: int, say: Callable[[str], Any]):
        self.run, self.last, self.every, self.say = folder, folder / "checkpoints" / LAST, every, say
        self.saved, self.asked = 0, 0  # a step; a signal

    def on_train_start(self, trainer, pl_module):
        self.saved = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # Lightning puts back what was there before
                signal.signal(number, self._ask)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of a step
        step, asked = trainer.global_step, trainer.strategy.reduce_boolean_decision(bool(self.asked), all=False)
        if step != self.saved and (asked or step % self.every == 0 or step == trainer.max_steps):
            self._save(trainer, pl_module)
        if asked and step < trainer.max_steps:
            if trainer.is_global_zero:
                self.say(f"stopped after step {step}; to go on: attend train run={self.run}")
            raise SystemExit(128 + (self.asked or signal.SIGTERM))

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
            trainer.save_checkpoint(new)  # all take part, and agree on the first one's name
            if trainer.is_global_zero and self.last.exists():
                before = self.last.with_name(BEFORE)
                if before.is_dir():
                    shutil.rmtree(before)
                os.replace(self.last, before)

    def _ask(self, number, _) -> None:
        self.asked = number
        if number in (signal.SIGUSR1, signal.SIGUSR2):
            return  # the scheduler's SIGTERM comes later, and is no second wish
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)


def to_resume(folder: Path) -> Path | None:
    """The checkpoint that a run goes on from: the last one that is whole, None if there never was one.

    Raises:
        ValueError: if there are some, and none is whole.
    """
    there = kept(folder)
    for path in there:
        if whole(path):
            return path
        warnings.warn(f"{path} is damaged: it was cut short or changed, and is left aside", stacklevel=2)
    if there:
        raise ValueError(f"no checkpoint in {folder} is whole; give another run=… for a new run")
    return None


def kept(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, the last one first."""
    return [path for name in (LAST, BEFORE) if (path := folder / "checkpoints" / name).exists()]


def last_weights(folder: Path) -> dict[str, Tensor]:
    """The model's weights in the last checkpoint of a run that is whole. Raises ValueError if there is none."""
    checkpoint = to_resume(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint")
    if checkpoint.is_dir():
        return sharded.weights(checkpoint)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("adapter."): weight for name, weight in state.items() if name.startswith("adapter.")}


def whole(path: Path) -> bool:
    """Does every part have the checksum that was written beside it, and is there nothing but data in it?

    A sharded checkpoint, a folder, has no checksums; its files must be as long as its index says.
    """
    try:
        if path.is_dir():
            return sharded.whole(path)
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return False
        return "global_step" in torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # damaged bytes make zipfile, zlib and pickle raise nearly anything
        return False


def _flush(trainer) -> None:
    for logger in trainer.loggers:
        logger.save()
