"""The progress bar and log lines of a training."""

import os
import time
from typing import Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.console import make_console

LOG_INTERVAL = 20.0  # seconds between lines in a log


def make_progress(console: Console | None = None) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console or make_console(),
        disable=os.environ.get("LOCAL_RANK", "0") != "0",  # one bar, however many processes
    )


class StepProgress(Callback):
    """A progress bar over the steps of a run with its loss, and a line at every validation."""

    def __init__(self, progress: Progress, label: str):
        self.progress, self.label, self.last_printed = progress, label, time.monotonic()

    def on_train_start(self, trainer, pl_module):
        self.bar = self.progress.add_task(
            self.label, total=trainer.max_steps, completed=trainer.global_step, note="", visible=trainer.is_global_zero
        )

    def on_train_batch_end(self, trainer: Any, pl_module, outputs, batch, batch_idx):
        self.progress.update(self.bar, completed=trainer.global_step)
        every = trainer.log_every_n_steps or trainer.max_steps
        logged = trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps
        if logged and "train/loss" in trainer.callback_metrics:  # else the host would wait for the GPU
            loss = f"loss {trainer.callback_metrics['train/loss'].item():.4f}"
            self.progress.update(self.bar, note=loss)
            console, now = self.progress.console, time.monotonic()
            if (
                not console.is_terminal and trainer.is_global_zero and now > self.last_printed + LOG_INTERVAL
            ):  # a log has no bar
                console.print(f"  {self.label}  step {trainer.global_step} of {trainer.max_steps}  {loss}")
                self.last_printed = now

    def on_validation_end(self, trainer, pl_module):
        if trainer.is_global_zero and not trainer.sanity_checking:
            scores = {
                k.removeprefix("val/"): v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")
            }
            text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.progress.console.print(f"  {self.label}  step {trainer.global_step}  validation: {text}")
