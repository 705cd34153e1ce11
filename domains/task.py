"""The one training loop body for every domain."""

from collections import deque
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from domains.adapter import Batch, DomainAdapter
from domains.config import OptimizerConfig
from domains.faults import listed, source_of_nan
from domains.optimizers import make_optimizer, make_schedule


class AttentionTask(LightningModule):
    """Trains any adapter. What a step leaves to chance is, like its batch, a function of (seed, batch) alone.

    Args:
        adapter: the model.
        optimizer: how its weights are updated.
        steps: optimizer steps of the whole run, for the schedule.
        record: what a checkpoint shall say of itself, as plain values, so that it loads under weights_only=True.
        seed: of the run.
    Raises:
        ValueError: in training, for a loss that is not finite; it says where that comes from.
    """

    def __init__(
        self,
        adapter: DomainAdapter,
        optimizer: OptimizerConfig,
        steps: int,
        record: dict[str, Any] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.adapter, self.optimizer, self.steps, self.seed = adapter, optimizer, steps, seed
        self.record = record or {}
        self.recent: deque[float] = deque(maxlen=25)
        self.scores = MetricCollection({name: MeanMetric() for name in adapter.measures})

    def training_step(self, batch: Batch, number: int) -> Tensor:
        chance = np.random.SeedSequence((self.seed, number, self.global_rank))
        torch.manual_seed(int(chance.generate_state(1)[0]))
        loss = self.adapter.loss(self.adapter(batch), batch)
        if not isfinite(value := loss.item()):
            raise ValueError(self._why(value, batch, number))
        self.recent.append(value)
        self.log("train/loss", fmean(self.recent))  # one batch says little
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        for name, values in self.adapter.measure(self.adapter(batch), batch).items():
            self.scores[name].update(values)

    def on_validation_epoch_end(self) -> None:
        for name, score in self.scores.items():
            self.log(f"val/{name}", score)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.adapter, self.optimizer)
        schedule = make_schedule(optimizer, self.optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"], checkpoint["recent"] = self.record, list(self.recent)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.recent.extend(checkpoint.get("recent", ()))

    def _why(self, loss: float, batch: Batch, number: int) -> str:
        loader: Any = self.trainer.train_dataloader
        samples = listed(loader.dataset.indices(number))
        return (
            f"the loss of step {self.global_step} is {loss}: {source_of_nan(self.adapter, batch)}; samples "
            f"{samples} of the training split. Look at these, or lower optimizer.lr"
        )
