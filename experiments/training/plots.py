"""A callback that draws the domain's plots every few training steps."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from domains.adapter import DomainAdapter
from domains.data import DomainData
from domains.domain import Domain


class TrainingPlots(Callback):
    """Draw figures/step_NNNNNN.png with the domain's `training_plots`.

    Args:
        domain: the domain of the run.
        data, adapter: those of the run.
        folder: the run folder.
        every: steps between two plots.
    Raises:
        ValueError: if the domain has no training plots, or `every` is below 1.
    """

    def __init__(self, domain: Domain, data: DomainData, adapter: DomainAdapter, folder: Path, every: int):
        if every < 1:
            raise ValueError(f"trainer.plot_every_n_steps must be at least 1, got {every}")
        if domain.training_plots is None:
            raise ValueError(f"trainer.plot_every_n_steps={every}: {domain.package} draws nothing while it trains")
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
