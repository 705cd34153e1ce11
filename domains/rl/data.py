"""Trajectories in three splits, shown as windows of a few time steps.

Shapes: B batch · K context, in time steps · N episodes · S state width
"""

from collections.abc import Sequence

import numpy as np

from domains.adapter import Batch
from domains.data import DomainData
from domains.rl.cartpole import CARTPOLE, cartpole
from domains.rl.config import DataConfig, Source
from domains.rl.environments import check_fit, describe, describe_data
from domains.rl.minari import from_minari
from domains.rl.trajectories import Trajectories, join, read, windows
from domains.sampling import Rngs

NO_ENVIRONMENT = "none"


class Data(DomainData):
    """Whole episodes go to one split: `held_out` of them each to validation and test.

    A training window starts at any time step of any episode with equal chance, which is Chen et al.'s "trajectories in
    proportion to their length". The windows of the other splits lie end to end, so that each step counts once.
    Windows are padded at the right: a causal model that looks from left to right never sees it.

    Raises:
        ValueError: from `setup`, for data that cannot be read or do not fit their environment, fewer than three
            episodes, a context below 1, or shares that cannot be.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "played"):
            return
        c = self.config
        if c.context < 1:
            raise ValueError(f"data.context={c.context} must be at least 1 time step")
        if not (0 < c.held_out < 0.5 and 0 < c.top_share <= 1):
            raise ValueError(
                f"data needs 0 < held_out < 0.5 and 0 < top_share <= 1, got {c.held_out} and {c.top_share}"
            )
        if c.temperature <= 0:
            raise ValueError(
                f"data.temperature={c.temperature} must be above 0; 0.01 is as good as the likeliest action"
            )
        self.environment, parts = self._load()
        self.played = join(parts) if len(parts) > 1 else parts[0]
        self.to_go = self.played.returns_to_go(delayed=c.delayed)  # (N, T)
        self.splits = self._split([len(part.lengths) for part in parts])
        self.starts = {
            "train": self._starts(self._best(self.splits["train"]), 1),
            "val": self._starts(self.splits["val"], c.context),
            "test": self._starts(self.splits["test"], c.context),
        }

    def spec(self):
        train = self.splits["train"]
        states = np.concatenate(
            [self.played.states[n, : self.played.lengths[n]] for n in train]
        )  # (steps, S) or images
        axis = 0 if states.ndim == 2 else None  # all pixels together
        returns = self.played.returns[train]
        return {
            "environment": self.environment,
            **self._about(),
            "context": self.config.context,
            "recall": self.config.recall.value,
            "temperature": self.config.temperature,
            "delayed": self.config.delayed,
            "mean": np.atleast_1d(states.mean(axis, dtype=np.float64)).tolist(),
            "std": np.atleast_1d(states.std(axis, dtype=np.float64)).tolist(),
            "best_return": float(returns.max()),
            "return_scale": float(np.abs(returns).max()) or 1.0,
        }

    def size(self, split):
        return len(self.starts[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """As `domains.rl.trajectories.windows` describes it."""
        episodes, first = self.starts[split][list(indices)].T  # (B,), (B,)
        return windows(self.played, self.to_go, episodes, first, self.config.context)

    def _load(self) -> tuple[str | None, list[Trajectories]]:
        """The environment's id, None if there is to be none, and the episodes of each source."""
        c = self.config
        if c.source is Source.cartpole:
            return CARTPOLE, [cartpole(c.episodes, self.seed)]
        if c.source is Source.minari:
            found = {f"data.name={c.name}": from_minari(c.name)}
        elif not c.path:
            raise ValueError("data=trajectories needs data.path=FILE.npz; attend collect env=… writes such a file")
        else:
            found = {path: read(path) for path in ([c.path] if isinstance(c.path, str) else map(str, c.path))}
        environments = {c.environment or environment for environment, _ in found.values()}
        if len(environments) > 1:
            raise ValueError(
                f"data.path mixes environments ({', '.join(sorted(environments))}); name one file, or several of one"
            )
        (environment,) = environments
        for source, (_, played) in found.items():
            if len(played.lengths) < 3:
                raise ValueError(f"{source} has {len(played.lengths)} episodes; each of three splits needs one")
            if environment != NO_ENVIRONMENT:
                check_fit(played, environment, source)
        parts = [played for _, played in found.values()]
        return None if environment == NO_ENVIRONMENT else environment, parts

    def _split(self, counts: Sequence[int]) -> dict[str, np.ndarray]:
        """The episodes of each split. Each source is split on its own: another that joins it moves none."""
        # Episodes that were made for a seed are split by it; what came from elsewhere is split the same for all seeds.
        seed = self.seed if self.config.source is Source.cartpole else 0
        splits: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
        for first, count in zip(np.cumsum([0, *counts]), counts, strict=False):
            order = first + np.random.default_rng(seed).permutation(count)
            few = max(1, int(self.config.held_out * count))
            for split, part in zip(splits, (order[2 * few :], order[:few], order[few : 2 * few]), strict=True):
                splits[split].append(part)
        return {split: np.concatenate(parts) for split, parts in splits.items()}

    def _about(self):
        return describe_data(self.played) if self.environment is None else describe(self.environment)

    def _best(self, episodes: np.ndarray) -> np.ndarray:
        """The episodes of highest return, until they have `top_share` of the steps of all; in the order given."""
        if self.config.top_share == 1:
            return episodes
        ranked = np.argsort(-self.played.returns[episodes], kind="stable")
        steps = np.cumsum(self.played.lengths[episodes][ranked])
        count = 1 + np.searchsorted(steps, self.config.top_share * steps[-1])
        return episodes[np.sort(ranked[:count])]

    def _starts(self, episodes: np.ndarray, stride: int) -> np.ndarray:
        """(windows, 2): the episode of each window, and its first step."""
        pairs = [(n, first) for n in episodes for first in range(0, self.played.lengths[n], stride)]
        return np.array(pairs)
