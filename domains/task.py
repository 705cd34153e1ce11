"""The one training loop body for every domain."""

from collections import deque
from collections.abc import Callable
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection

from domains.adapter import Batch, DomainAdapter, Loss, mean_loss
from domains.config import OptimizerConfig
from domains.data import REPEATED, DomainData, place
from domains.faults import listed, source_of_nan
from domains.optimizers import make_optimizer, make_schedule
from domains.parallel import clip


class AttentionTask(LightningModule):
    """Trains any adapter. What a step leaves to chance is, like its batch, a function of (seed, batch) alone.

    Args:
        adapter: the model.
        optimizer: how its weights are updated.
        steps: optimizer steps of the whole run, for the schedule.
        record: what a checkpoint shall say of itself, as plain values, so that it loads under weights_only=True.
        seed: of the run.
        spread: spreads the adapter over the devices of a mesh, or of none, before it is trained.
        skips: at most this many consecutive steps are left out when their loss is not finite: no weight changes, the
            schedule goes on.
    Raises:
        ValueError: in training, for a loss that is not finite after so many skips; it says where that comes from.
    """

    def __init__(
        self,
        adapter: DomainAdapter,
        optimizer: OptimizerConfig,
        steps: int,
        record: dict[str, Any] | None = None,
        seed: int = 0,
        spread: Callable[[DomainAdapter, DeviceMesh | None], None] | None = None,
        skips: int = 0,
    ):
        super().__init__()
        self.adapter, self.optimizer, self.steps, self.seed = adapter, optimizer, steps, seed
        self.spread, self.skips = spread, skips
        self.spoilt, self.skipped = False, 0  # whether this step has a loss that is not finite; steps left out in a row
        self.record = record or {}
        self.recent: deque[float] = deque(maxlen=25)
        self.scores = MetricCollection({name: MeanMetric() for name in adapter.measures})

    def configure_model(self) -> None:
        if self.spread is not None:  # Lightning may call this more than once
            self.spread(self.adapter, self.device_mesh)
            self.spread = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        chance = np.random.SeedSequence((self.seed, number, place(self.trainer)[0]))
        torch.manual_seed(int(chance.generate_state(1)[0]))
        loss = global_mean(self.adapter.loss(self.adapter(batch), batch))
        if isfinite(value := loss.item()):
            self.recent.append(value)
        else:
            self._skip(value, batch, number)
        self.log("train/loss", fmean(self.recent or [value]), sync_dist=True)  # one batch says little
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if not self.skips:
            return
        if self.trainer.strategy.reduce_boolean_decision(self.spoilt, all=False):  # of any process
            optimizer.zero_grad(set_to_none=True)  # a weight without a gradient stays as it is
            self.skipped += 1
        else:
            self.skipped = 0
        self.spoilt = False

    def validation_step(self, batch: Batch, _: int) -> None:
        predictions = self.adapter(batch)
        if REPEATED not in batch:
            for name, values in self.adapter.measure(predictions, batch).items():
                self.scores[name].update(values)

    def on_validation_epoch_end(self) -> None:
        for name, score in self.scores.items():
            self.log(f"val/{name}", score)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.adapter, self.optimizer)
        schedule = make_schedule(optimizer, self.optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        if self.device_mesh is not None and gradient_clip_val:
            clip(self.adapter.parameters(), float(gradient_clip_val))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"], checkpoint["recent"] = self.record, list(self.recent)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.recent.extend(checkpoint.get("recent", ()))

    def _skip(self, loss: float, batch: Batch, number: int) -> None:
        why = self._why(loss, batch, number)
        if self.skipped >= self.skips:
            raise ValueError(why)
        print(f"  left out, {self.skipped + 1} of {self.skips} in a row: {why}")
        self.spoilt = True

    def _why(self, loss: float, batch: Batch, number: int) -> str:
        loader: Any = self.trainer.train_dataloader
        samples = listed(loader.dataset.indices(number))
        source = source_of_nan(self.adapter, batch, shared=self.device_mesh is not None)
        return (
            f"the loss of step {self.global_step} is {loss}: {source}; samples "
            f"{samples} of the training split. Look at these, or lower optimizer.lr"
        )


def global_mean(loss: Loss) -> Tensor:
    """The part of this process, one of R, in the mean loss of a step. Gradients are averaged over all:

    1/R Σ_r R sum_r / Σ_r count_r = Σ_r sum_r / Σ_r count_r        for each term
    """
    if not (dist.is_available() and dist.is_initialized()):
        return mean_loss(loss)
    count = loss.count.detach().float().clone()
    dist.all_reduce(count)
    return mean_loss(Loss(loss.sum * dist.get_world_size(), count))


class TaskData(LightningDataModule):
    """The data of a domain, loaded already, as Lightning asks for them."""

    def __init__(self, data: DomainData):
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Any:
        self.data.trainer = self.trainer
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        self.data.trainer = self.trainer
        return self.data.val_dataloader()
