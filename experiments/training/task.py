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
from experiments.training.nonfinite import LossHistory, source_of_nan
from experiments.training.optimizers import make_optimizer, make_schedule
from experiments.training.parallel import clip


class AttentionTask(LightningModule):
    """Trains any adapter. What a step leaves to chance is, like its batch, a function of (seed, batch) alone.

    Args:
        adapter: the model.
        optimizer: how its weights are updated.
        steps: optimizer steps of the whole run, for the schedule.
        record: what a checkpoint shall say of itself, as plain values, so that it loads under weights_only=True.
        seed: of the run.
        parallelize: spreads the adapter over the devices of a mesh, or of none, before it is trained.
        skips: at most this many consecutive steps are left out when their loss is not finite: no weight changes, the
            schedule goes on. If there are any, the host waits for the device in every step; otherwise only in a step
            that is logged, and on a CPU, where it waits for nothing.
    Raises:
        ValueError: in training, for a loss that is not finite after so many skips; it says where that comes from. It
            is raised when the host reads the loss, and always before a checkpoint is written.
    """

    def __init__(
        self,
        adapter: DomainAdapter,
        optimizer: OptimizerConfig,
        steps: int,
        record: dict[str, Any] | None = None,
        seed: int = 0,
        parallelize: Callable[[DomainAdapter, DeviceMesh | None], None] | None = None,
        skips: int = 0,
    ):
        super().__init__()
        self.adapter, self.optimizer, self.steps, self.seed = adapter, optimizer, steps, seed
        self.parallelize, self.skips = parallelize, skips
        self.nonfinite, self.skipped = False, 0  # whether a loss of this step is; how many in a row were left out
        self.record = record or {}
        self.losses = LossHistory()
        self.scores = MetricCollection({name: MeanMetric() for name in adapter.metric_names})

    def configure_model(self) -> None:
        if self.parallelize is not None:  # Lightning may call this more than once
            self.parallelize(self.adapter, self.device_mesh)
            self.parallelize = None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        chance = np.random.SeedSequence((self.seed, number, data_rank(self.trainer)[0]))
        torch.manual_seed(int(chance.generate_state(1)[0]))
        loss = global_mean(self.adapter.loss(self.adapter(batch), batch))
        self.losses.check(loss.detach(), number)
        if not (self.may_wait(loss.device) and self.check_losses(batch, loss)):
            self.losses.append(loss.detach())
        if self._is_logged():
            self.log("train/loss", self.losses.mean(), sync_dist=True)
        return loss

    def may_wait(self, device: torch.device) -> bool:
        """Whether this step reads its loss from the device. On a CPU that waits for nothing."""
        return device.type == "cpu" or self.skips > 0 or self._is_logged()

    def check_losses(self, batch: Batch | None = None, loss: Tensor | None = None) -> bool:
        """Wait for the losses since the last call; of all processes, which call this together.

        Args:
            batch, loss: of this step, if it has changed no weights yet.
        Returns:
            Whether one was not finite, and its step is left out.
        Raises:
            ValueError: if one was not finite, and no step may be left out, or no more of them.
        """
        first = self.losses.nonfinite()
        if not self.trainer.strategy.reduce_boolean_decision(first is not None, all=False):  # of any process
            return False
        why = "a loss of another process is not finite" if first is None else self._why(first, batch, loss)
        if self.skipped >= self.skips:
            raise ValueError(why)
        if first is not None:
            print(f"  left out, {self.skipped + 1} of {self.skips} in a row: {why}")
        self.nonfinite = True
        return first is not None

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
            clip(self.adapter.parameters(), float(gradient_clip_val))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"], checkpoint["recent"] = self.record, self.losses.recent.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.losses.recent = torch.tensor(checkpoint["recent"], dtype=torch.float64)

    def _is_logged(self) -> bool:
        """Whether Lightning writes down what is logged in this step, or it is the last one."""
        trainer: Any = self.trainer
        step, every = trainer.global_step + 1, trainer.log_every_n_steps
        return step == trainer.max_steps or (every > 0 and step % every == 0)

    def _why(self, number: int, batch: Batch | None, loss: Tensor | None) -> str:
        """Why the loss of a batch was not finite; where it is noticed too late, the batch is made again."""
        datasets = tree_map(lambda loader: loader.dataset, self.trainer.train_dataloader)
        samples = tree_map(lambda dataset: listed(dataset.indices(number)), datasets)  # for each domain, if joint
        step = number // self.trainer.accumulate_grad_batches
        if step == self.global_step and batch is not None and loss is not None:
            what = f"the loss of step {step} is {loss.item()}"
        else:
            batch = self.trainer.strategy.batch_to_device(tree_map(lambda dataset: dataset[number], datasets))
            what = f"the loss first was not finite at step {step}, and the weights followed"
        assert batch is not None
        source = source_of_nan(self.adapter, batch, shared=self.device_mesh is not None)
        return f"{what}: {source}; samples {samples} of the training split. Look at these, or lower optimizer.lr"


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
        trainer: Any = self.trainer
        first, steps = (n * trainer.accumulate_grad_batches for n in (trainer.global_step, trainer.max_steps))
        return together(self.data.train_dataloader(*data_rank(trainer), first, steps), "min_size")

    def val_dataloader(self) -> Any:
        return together(self.data.eval_dataloader("val", *data_rank(self.trainer)), "max_size")


def together(loaders: Any, mode: Literal["min_size", "max_size"]) -> Any:
    """Several loaders by name as one."""
    return CombinedLoader(loaders, mode) if isinstance(loaders, dict) else loaders


def data_rank(trainer: Any) -> tuple[int, int]:
    """(rank, world): which part of a batch this process reads, out of how many; processes of one tensor-parallel row
    read the same part."""
    shares = getattr(trainer.strategy, "distributed_sampler_kwargs", {"rank": 0, "num_replicas": 1})
    return shares["rank"], shares["num_replicas"]
