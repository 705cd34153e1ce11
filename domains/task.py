"""The one training loop body for every domain."""

from collections import deque
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from domains.adapter import Batch, DomainAdapter
from domains.config import OptimizerConfig
from domains.optimizers import make_optimizer, make_schedule


class AttentionTask(LightningModule):
    """Trains any adapter.

    Args:
        adapter: the model.
        optimizer: how its weights are updated.
        steps: optimizer steps of the whole run, for the schedule.
        record: what a checkpoint shall say of itself, as plain values, so that it loads under weights_only=True.
    """

    def __init__(
        self, adapter: DomainAdapter, optimizer: OptimizerConfig, steps: int, record: dict[str, Any] | None = None
    ):
        super().__init__()
        self.adapter, self.optimizer, self.steps = adapter, optimizer, steps
        self.record = record or {}
        self.recent: deque[Tensor] = deque(maxlen=25)
        self.scores = MetricCollection({name: MeanMetric() for name in adapter.measures})

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.adapter.loss(self.adapter(batch), batch)
        self.recent.append(loss.detach())
        self.log("train/loss", torch.stack(tuple(self.recent)).mean())  # one batch says little
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
        checkpoint["record"] = self.record
