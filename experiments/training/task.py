"""The one training loop body for every domain."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from torchmetrics import MeanMetric, MetricCollection

from domains.adapter import Batch, DomainAdapter, Loss, mean_loss
from domains.data import REPEATED, DomainData
from domains.data_warnings import listed
from experiments.config import OptimizerConfig
from experiments.training.nonfinite import LossHistory, find_nonfinite_source
from experiments.training.optimizers import make_optimizer, make_schedule
from experiments.training.parallel import clip_grad_norm


class AttentionTask(LightningModule):
    """Train any adapter. The random numbers of a step, like its batch, depend only on (seed, batch number).

    Args:
        adapter: the model.
        optimizer: configuration of the optimizer.
        steps: optimizer steps of the whole run, for the schedule.
        record: configuration and spec for the checkpoint, as plain values that load under weights_only=True.
        seed: of the run.
        parallelize: prepares the adapter for a mesh of devices, or for none, before training.
        max_skips: consecutive steps that may be skipped when their loss is not finite: no weight changes, the schedule
            advances. Above 0 the host waits for the device in every step; otherwise only in a step that is logged, or
            on a CPU.
    Raises:
        ValueError: in training, for a non-finite loss after `max_skips` skips; it names the source. Raised when the
            host reads the loss, and always before a checkpoint is written.
    """

    def __init__(
        self,
        adapter: DomainAdapter,
        optimizer: OptimizerConfig,
        steps: int,
        record: dict[str, Any] | None = None,
        seed: int = 0,
        parallelize: Callable[[DomainAdapter, DeviceMesh | None], None] | None = None,
        max_skips: int = 0,
    ):
        super().__init__()
        self.adapter, self.optimizer, self.steps, self.seed = adapter, optimizer, steps, seed
        self.parallelize, self.max_skips = parallelize, max_skips
        self.nonfinite, self.skipped = False, 0  # whether a loss of this step is non-finite; steps skipped in a row
        self.record = record or {}
        self.losses = LossHistory()
        self.scores = MetricCollection({name: MeanMetric() for name in adapter.metric_names})

    def configure_model(self) -> None:
        if self.parallelize is not None:  # Lightning may call this more than once
            self.parallelize(self.adapter, self.device_mesh)
            self.parallelize = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        seeds = np.random.SeedSequence((self.seed, number, data_rank(self.trainer)[0]))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        loss = global_mean(self.adapter.loss(self.adapter(batch), batch))
        self.losses.check(loss.detach(), number)
        if not (self.reads_loss(loss.device) and self.check_losses(batch, loss)):
            self.losses.append(loss.detach())
        if self._is_logged():
            self.log("train/loss", self.losses.mean(), sync_dist=True)
        return loss

    def reads_loss(self, device: torch.device) -> bool:
        """Return whether this step reads its loss from the device; on a CPU that is free."""
        return device.type == "cpu" or self.max_skips > 0 or self._is_logged()

    def check_losses(self, batch: Batch | None = None, loss: Tensor | None = None) -> bool:
        """Check the losses since the last call on all processes. A collective: all processes must call it.

        Args:
            batch, loss: of this step, if it has not changed the weights yet.
        Returns:
            Whether a loss of this process was not finite, and its step is skipped.
        Raises:
            ValueError: if a loss was not finite, and no more steps may be skipped.
        """
        first_batch = self.losses.nonfinite()
        if not self.trainer.strategy.reduce_boolean_decision(first_batch is not None, all=False):  # of any process
            return False
        reason = (
            "a loss of another process is not finite"
            if first_batch is None
            else self._explain_nonfinite(first_batch, batch, loss)
        )
        if self.skipped >= self.max_skips:
            raise ValueError(reason)
        if first_batch is not None:
            print(f"  left out, {self.skipped + 1} of {self.max_skips} in a row: {reason}")
        self.nonfinite = True
        return first_batch is not None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.nonfinite:
            optimizer.zero_grad(set_to_none=True)  # a weight without a gradient stays as it is
        self.skipped = self.skipped + 1 if self.nonfinite else 0
        self.nonfinite = False

    def validation_step(self, batch: Batch, _: int) -> None:
        predictions = self.adapter(batch)
        if REPEATED not in batch:
            for name, values in self.adapter.metrics(predictions, batch).items():
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
            clip_grad_norm(self.adapter.parameters(), float(gradient_clip_val))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"], checkpoint["recent"] = self.record, self.losses.recent.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses.recent = torch.tensor(checkpoint["recent"], dtype=torch.float64)

    def _is_logged(self) -> bool:
        """Return whether Lightning logs in this step, or it is the last one."""
        trainer: Any = self.trainer
        step, every = trainer.global_step + 1, trainer.log_every_n_steps
        return step == trainer.max_steps or (every > 0 and step % every == 0)

    def _explain_nonfinite(self, number: int, batch: Batch | None, loss: Tensor | None) -> str:
        """Explain why the loss of a batch was not finite; if it is noticed late, make the batch again."""
        datasets = tree_map(lambda loader: loader.dataset, self.trainer.train_dataloader)
        samples = tree_map(lambda dataset: listed(dataset.indices(number)), datasets)  # for each domain, if joint
        step = number // self.trainer.accumulate_grad_batches
        if step == self.global_step and batch is not None and loss is not None:
            problem = f"the loss of step {step} is {loss.item()}"
        else:
            batch = self.trainer.strategy.batch_to_device(tree_map(lambda dataset: dataset[number], datasets))
            problem = f"the loss first was not finite at step {step}, and the weights followed"
        assert batch is not None
        source = find_nonfinite_source(self.adapter, batch, sharded=self.device_mesh is not None)
        return f"{problem}: {source}; samples {samples} of the training split. Look at these, or lower optimizer.lr"


def global_mean(loss: Loss) -> Tensor:
    """Return this process's term in the mean loss of a step over R processes, whose gradients are averaged:

    1/R Σ_r R sum_r / Σ_r count_r = Σ_r sum_r / Σ_r count_r        for each term
    """
    if not (dist.is_available() and dist.is_initialized()):
        return mean_loss(loss)
    count = loss.count.detach().float().clone()
    dist.all_reduce(count)
    return mean_loss(Loss(loss.sum * dist.get_world_size(), count))


class TaskData(LightningDataModule):
    """A Lightning data module of a domain's data."""

    def __init__(self, data: DomainData):
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Any:
        trainer: Any = self.trainer
        first_batch, steps = (n * trainer.accumulate_grad_batches for n in (trainer.global_step, trainer.max_steps))
        return combine_loaders(self.data.train_dataloader(*data_rank(trainer), first_batch, steps), "min_size")

    def val_dataloader(self) -> Any:
        return combine_loaders(self.data.eval_dataloader("val", *data_rank(self.trainer)), "max_size")


def combine_loaders(loaders: Any, mode: Literal["min_size", "max_size"]) -> Any:
    """Combine several loaders by name into one."""
    return CombinedLoader(loaders, mode) if isinstance(loaders, dict) else loaders


def data_rank(trainer: Any) -> tuple[int, int]:
    """Return (rank, world size) among the data-parallel processes; those of one tensor-parallel row read the same
    data."""
    sampler_kwargs = getattr(trainer.strategy, "distributed_sampler_kwargs", {"rank": 0, "num_replicas": 1})
    return sampler_kwargs["rank"], sampler_kwargs["num_replicas"]
