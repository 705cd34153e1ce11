"""The data of a domain: splits, and batches that are pure functions of the step."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader

from domains.adapter import Batch
from domains.sampling import Rngs, StepDataset, StepSampler

SPLITS = ("train", "val", "test")
REPEATED = "repeated"  # in a batch that does not count: it keeps one process in step with the others


@runtime_checkable
class DataConfig(Protocol):
    """The fields that the data configuration of every domain has."""

    batch_size: int
    workers: int


class DomainData(ABC):
    """Samples in three splits. A subclass loads them in `setup`, which may be called more than once.

    It is no LightningDataModule (experiments/training/task.py has one), for Lightning takes seconds to load, and only a
    training needs it.

    Args:
        config: the domain's own DataConfig.
        seed: decides order, augmentation and whatever the data themselves leave to chance.
    """

    def __init__(self, config: DataConfig, seed: int = 0):
        self.config, self.seed = config, seed

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Load the splits."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return what the model must know of its data (sizes, names, statistics) as plain values."""

    @abstractmethod
    def size(self, split: str) -> int:
        """Number of samples in a split."""

    @abstractmethod
    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """The samples with these indices. With `rngs`, one generator for each, they may be augmented and cropped."""

    def train_dataloader(
        self, rank: int = 0, world: int = 1, first_step: int = 0, steps: int = sys.maxsize
    ) -> DataLoader[Batch]:
        """The batches of the steps `first_step` to `steps` - 1, of which this process gets every `world`-th sample."""
        size, config = self.size("train"), self.config
        step_dataset = StepDataset(size, config.batch_size, self.seed, self._train_batch, rank, world, config.workers)
        self.step_datasets = [step_dataset]
        return self._loader(step_dataset, StepSampler(first_step, steps))

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """Load every sample of a split once, in order; under several processes each takes every n-th batch.

        All processes take as many: where there are not enough, a batch comes again, marked as REPEATED.

        Raises:
            ValueError: for an unknown or empty split.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; possible: {', '.join(SPLITS)}")
        size, each = self.size(split), self.config.batch_size
        if size == 0:
            possible = ", ".join(other for other in SPLITS if self.size(other))
            raise ValueError(f"the {split} split is empty; possible: {possible}")
        batches = [(range(i, min(i + each, size)), True) for i in range(0, size, each)]
        batches += [(batches[0][0], False)] * (-len(batches) % world)
        return self._loader(_Eval(self, split), batches[rank::world])

    def _train_batch(self, indices: Sequence[int], rngs: Rngs) -> Batch:
        return self.batch("train", indices, rngs)

    def _loader(self, data, sampler) -> DataLoader:
        workers = self.config.workers
        return DataLoader(
            data,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals,
        )


def _leave_signals(_: int) -> None:
    """A terminal sends Ctrl-C to workers too; the training itself decides when to stop, and then ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Eval:
    """dataset[indices, counts] -> batch: what a loader asks for when its sampler yields whole batches."""

    def __init__(self, data: DomainData, split: str):
        self.data, self.split = data, split

    def __getitem__(self, asked: tuple[Sequence[int], bool]) -> Batch:
        indices, counts = asked
        batch = self.data.batch(self.split, indices)
        return batch if counts else {**batch, REPEATED: torch.ones(())}
