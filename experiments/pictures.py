"""What a model looks at, drawn every so many steps of its training."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from domains.adapter import DomainAdapter
from domains.data import DomainData
from experiments.runs import room


class Pictures(Callback):
    """Draws figures/step_NNNNNN.png.

    A domain that has something to draw has a room for it: watch.py, with picture(adapter, data, path).

    Args:
        package: of the domain.
        data, adapter: those of the run.
        folder: the run folder.
        every: steps between two pictures.
    Raises:
        ValueError: if the domain has no such room, or `every` is no number of steps.
    """

    def __init__(self, package: str, data: DomainData, adapter: DomainAdapter, folder: Path, every: int):
        if every < 1:
            raise ValueError(f"trainer.picture_interval must be at least 1, got {every}")
        self.draw = room(package, "watch").picture
        self.data, self.adapter, self.folder, self.every, self.drawn = data, adapter, folder / "figures", every, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        step = trainer.global_step
        if step == self.drawn or step % self.every or not trainer.is_global_zero:
            return
        self.drawn = step
        training = self.adapter.training
        self.folder.mkdir(exist_ok=True)
        self.draw(self.adapter.eval(), self.data, self.folder / f"step_{step:06d}.png")
        self.adapter.train(training)
