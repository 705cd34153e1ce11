"""What a run needs to go on."""

import os
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class Checkpoints(Callback):
    """Writes last.ckpt every so many steps and after the last one.

    It is written under another name and then renamed: a kill leaves no half file.
    """

    def __init__(self, folder: Path, every: int):
        self.path, self.every, self.saved = folder / "last.ckpt", every, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        step = trainer.global_step
        if step == self.saved or (step % self.every and step != trainer.max_steps):
            return
        self.saved = step
        unfinished = self.path.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.path)
