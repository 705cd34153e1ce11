"""Training data as a pure function of the step.

What a step trains on depends on (seed, step) alone, and not on workers, on how often the run was stopped and resumed,
or on how many processes share the step's batch (but for images mixed in pairs, whose partner is of the same process).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from domains.adapter import Batch

Rngs = Iterator[np.random.Generator]  # one for each sample of a batch
MakeBatch = Callable[[Sequence[int], Rngs], Batch]


class StepDataset(Dataset):
    """dataset[step] is the whole batch of that step: a shuffled pass over all samples, then another, without a seam.

    Args:
        size: number of samples.
        batch_size: samples a step, over all processes together.
        make_batch: (indices, a random generator for each) -> batch.
        rank, world: this process and how many there are; it gets every `world`-th sample of a step.
        workers: processes that read for this one; `progress` tells what each of them is at.
    Raises:
        ValueError: if there is nothing to draw from, or the processes cannot share a batch evenly.
    """

    def __init__(self, size: int, batch_size: int, seed: int, make_batch: MakeBatch, rank=0, world=1, workers=0):
        if size < 1:
            raise ValueError("the training split is empty")
        if batch_size < 1 or batch_size % world:
            raise ValueError(f"data.batch_size={batch_size} must be a positive multiple of the {world} processes")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.make_batch, self.rank, self.world, self.progress = make_batch, rank, world, WorkerProgress(workers)

    def __getitem__(self, step: int) -> Batch:
        return self.read(step, self.indices(step))

    def indices(self, step: int) -> list[int]:
        """Return the indices of the samples of a step."""
        return [int(shuffled(self.size, self.seed, n // self.size)[n % self.size]) for n in self.numbers(step)]

    def read(self, step: int, indices: Sequence[int]) -> Batch:
        self.progress.begin(step)
        batch = self.make_batch(indices, (np.random.default_rng((self.seed, n)) for n in self.numbers(step)))
        self.progress.end()
        return batch

    def numbers(self, step: int) -> range:
        """The places of a step's samples in the stream of all passes."""
        return range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world)


class WorkerProgress:
    """The step that each data worker is reading, in shared memory, in case the worker dies.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int):
        self.lines = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # process, step + 1

    def begin(self, step: int) -> None:
        if worker := get_worker_info():
            self.lines[worker.id] = torch.tensor([os.getpid(), step + 1])

    def end(self) -> None:
        if worker := get_worker_info():
            self.lines[worker.id, 1] = 0

    def step_of(self, process: int) -> int | None:
        """Return the step whose batch a process was reading, or None."""
        return next((step - 1 for who, step in self.lines.tolist() if who == process and step), None)


class StepSampler(Sampler[int]):
    """The steps that are left of a run: start, start + 1 … steps - 1. Its length is that of the whole run."""

    def __init__(self, start: int, steps: int):
        self.start, self.steps = start, steps

    def __iter__(self):
        return iter(range(self.start, self.steps))

    def __len__(self):
        return self.steps


@lru_cache(maxsize=4)
def shuffled(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of all samples in one pass over them."""
    return np.random.default_rng((seed, epoch, size)).permutation(size)
