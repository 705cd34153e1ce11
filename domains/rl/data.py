"""Trajectories in three splits, shown as windows of a few time steps.

Shapes: B batch · K context, in time steps · N episodes · S state width
"""

from collections.abc import Sequence

import numpy as np

from domains.adapter import Batch
from domains.data import DomainData
from domains.rl.collect import ENVIRONMENTS, collect
from domains.rl.config import DataConfig
from domains.rl.rollout import describe, windows
from domains.sampling import Rngs


class Data(DomainData):
    """Whole episodes go to one split: a tenth each to validation and test.

    A training window starts at any time step of any episode with equal chance, which is Chen et al.'s "trajectories in
    proportion to their length". The windows of the other splits lie end to end, so that each step counts once.
    Windows are padded at the right: a causal model that looks from left to right never sees it.

    Raises:
        ValueError: from `setup`, for fewer than three episodes or a context below 1.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "played"):
            return
        if self.config.context < 1:
            raise ValueError(f"data.context={self.config.context} must be at least 1 time step")
        self.played = collect(self.config.source, self.config.episodes, self.seed)
        self.to_go = self.played.returns_to_go()  # (N, T)
        order = np.random.default_rng(self.seed).permutation(self.config.episodes)
        tenth = max(1, self.config.episodes // 10)
        self.splits = {"train": order[2 * tenth :], "val": order[:tenth], "test": order[tenth : 2 * tenth]}
        self.starts = {split: self._starts(split) for split in self.splits}

    def spec(self):
        env = ENVIRONMENTS[self.config.source]
        train = self.splits["train"]
        states = np.concatenate([self.played.states[n, : self.played.lengths[n]] for n in train])  # (steps, S)
        returns = self.played.returns[train]
        return {
            "environment": env,
            **describe(env),
            "context": self.config.context,
            "mean": [float(v) for v in states.mean(0, dtype=np.float64)],
            "std": [float(v) for v in states.std(0, dtype=np.float64)],
            "best_return": float(returns.max()),
            "return_scale": float(np.abs(returns).max()),
        }

    def size(self, split):
        return len(self.starts[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """As `domains.rl.rollout.windows` describes it."""
        episodes, first = self.starts[split][list(indices)].T  # (B,), (B,)
        return windows(self.played, self.to_go, episodes, first, self.config.context)

    def _starts(self, split: str) -> np.ndarray:
        """(windows, 2): the episode of each window of a split, and its first step."""
        stride = 1 if split == "train" else self.config.context
        pairs = [(n, first) for n in self.splits[split] for first in range(0, self.played.lengths[n], stride)]
        return np.array(pairs)
