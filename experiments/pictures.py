"""What a model looks at, drawn every so many steps of its training."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from domains.adapter import DomainAdapter
from domains.data import DomainData
from domains.domain import Domain


class Pictures(Callback):
    """Draws figures/step_NNNNNN.png.

    Args:
        domain: which says how.
        data, adapter: those of the run.
        folder: the run folder.
        every: steps between two pictures.
    Raises:
        ValueError: if the domain draws nothing in training, or `every` is no number of steps.
    """

    def __init__(self, domain: Domain, data: DomainData, adapter: DomainAdapter, folder: Path, every: int):
        if every < 1:
            raise ValueError(f"trainer.picture_interval must be at least 1, got {every}")
        if domain.training_plots is None:
            raise ValueError(f"trainer.picture_interval={every}: {domain.package} draws nothing while it trains")
        self.draw = domain.training_plots
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
