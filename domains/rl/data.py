"""Trajectories in three splits, as windows of a few time steps.

Shapes: B batch · K context, in time steps · N episodes · S state width
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domains.adapter import Batch
from domains.data import DomainData
from domains.data_warnings import warn_data
from domains.rl.cartpole import CARTPOLE_ID, collect_cartpole
from domains.rl.config import DataConfig, Source
from domains.rl.env_specs import format_identity, spec_identity
from domains.rl.environments import (
    MAX_STEPS,
    check_env_match,
    describe_env,
    describe_trajectories,
    recreate_env_or_warn,
)
from domains.rl.float32 import state_offset, warn_coarse, warn_offset, warn_small_std
from domains.rl.minari import from_minari
from domains.rl.trajectories import Trajectories, join, read, windows
from domains.sampling import Rngs

NO_ENVIRONMENT = "none"


class Data(DomainData):
    """Windows of episodes. Each episode is in one split: a share `held_out` each in validation and test.

    A training window starts at any time step of any episode with equal probability, which is Chen et al.'s
    "trajectories in proportion to their length". The windows of the other splits lie end to end, so that each step
    counts once. Windows are padded at the right, which a causal model never sees.

    Raises:
        ValueError: from `setup`, for data that cannot be read or do not fit their environment, fewer than three
            episodes, a context below 1, or invalid shares.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "trajectories"):
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
        counts = self._load()
        self.returns_to_go = self.trajectories.returns_to_go(delayed=c.delayed)  # (N, T)
        self.splits = self._split(counts)
        train_states = self._train_states()
        self.offset, train = state_offset(train_states), self.splits["train"]
        returns = self.trajectories.returns[train]
        warn_offset(train_states)
        warn_small_std(np.atleast_1d(train_states.std(0 if train_states.ndim == 2 else None, dtype=np.float64)))
        warn_coarse("returns", returns, "the training episodes")
        if len(returns) > 1 and returns.min() == returns.max():
            warn_data(
                f"all {len(returns)} episodes to train on have the return {returns[0]:g}: nothing can be asked for"
            )
        self.starts = {
            "train": self._starts(self._best(self.splits["train"]), 1),
            "val": self._starts(self.splits["val"], c.context),
            "test": self._starts(self.splits["test"], c.context),
        }

    def spec(self):
        states = self._train_states()
        axis = 0 if states.ndim == 2 else None  # all pixels together
        mean, returns = states.mean(axis, dtype=np.float64), self.trajectories.returns[self.splits["train"]]
        return {
            "env_id": self.env_id,
            **self.env_description,
            "env_spec": self.env_spec,
            "context": self.config.context,
            "kv_cache": self.config.kv_cache,
            "temperature": self.config.temperature,
            "delayed": self.config.delayed,
            "mean": np.atleast_1d(mean if self.offset is None else mean - self.offset).tolist(),
            "std": np.atleast_1d(states.std(axis, dtype=np.float64)).tolist(),
            **({} if self.offset is None else {"offset": self.offset}),
            "best_return": float(returns.max()),
            "return_scale": float(np.abs(returns).max()) or 1.0,
        }

    def size(self, split):
        return len(self.starts[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        """Return a batch of `domains.rl.trajectories.windows`."""
        episodes, first = self.starts[split][list(indices)].T  # (B,), (B,)
        return windows(self.trajectories, self.returns_to_go, episodes, first, self.config.context, self.offset)

    def _train_states(self) -> np.ndarray:
        """Return the states of the training episodes, (steps, S) or images."""
        return np.concatenate(
            [self.trajectories.states[n, : self.trajectories.lengths[n]] for n in self.splits["train"]]
        )

    def _load(self) -> list[int]:
        """Load the episodes, their environment and its description; return the number of episodes of each source."""
        c = self.config
        if c.source is Source.cartpole:
            sources = {CARTPOLE_ID: (CARTPOLE_ID, collect_cartpole(c.episodes, self.seed))}
        elif c.source is Source.minari:
            sources = {f"data.name={c.name}": from_minari(c.name)}
        elif not c.path:
            raise ValueError("data=trajectories needs data.path=FILE.npz; attend collect env=… writes such a file")
        else:
            sources = {path: read(path) for path in ([c.path] if isinstance(c.path, str) else map(str, c.path))}
        trajectory_sets = [trajectories for _, trajectories in sources.values()]
        self.env_id, self.env_spec = choose_env(c.env_id, sources)
        env = recreate_env_or_warn({"env_id": self.env_id, "env_spec": self.env_spec})
        for source, part in zip(sources, trajectory_sets, strict=True):
            if len(part.lengths) < 3:
                raise ValueError(f"{source} has {len(part.lengths)} episodes; each of three splits needs one")
            if env is not None:
                check_env_match(part, env, source)
        self.trajectories = join(trajectory_sets) if len(trajectory_sets) > 1 else trajectory_sets[0]
        self.env_description = describe_trajectories(self.trajectories) if env is None else describe_env(env)
        limit = (self.env_spec or {}).get("max_episode_steps") if env is None else None
        if type(limit) is int and self.env_description["max_episode_steps"] < limit <= MAX_STEPS:
            self.env_description["max_episode_steps"] = limit
        return [len(part.lengths) for part in trajectory_sets]

    def _split(self, counts: Sequence[int]) -> dict[str, np.ndarray]:
        """Return the episodes of each split. Each source is split on its own, independently of the others."""
        # Episodes collected with a seed are split by it; recorded data are split the same for all seeds.
        seed = self.seed if self.config.source is Source.cartpole else 0
        splits: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
        for first, count in zip(np.cumsum([0, *counts]), counts, strict=False):
            order = first + np.random.default_rng(seed).permutation(count)
            few = max(1, int(self.config.held_out * count))
            for split, part in zip(splits, (order[2 * few :], order[:few], order[few : 2 * few]), strict=True):
                splits[split].append(part)
        return {split: np.concatenate(parts) for split, parts in splits.items()}

    def _best(self, episodes: np.ndarray) -> np.ndarray:
        """Return the episodes of highest return with `top_share` of all steps, in the given order."""
        if self.config.top_share == 1:
            return episodes
        ranked = np.argsort(-self.trajectories.returns[episodes], kind="stable")
        steps = np.cumsum(self.trajectories.lengths[episodes][ranked])
        count = 1 + np.searchsorted(steps, self.config.top_share * steps[-1])
        return episodes[np.sort(ranked[:count])]

    def _starts(self, episodes: np.ndarray, stride: int) -> np.ndarray:
        """Return the episode and the first step of each window, (windows, 2)."""
        pairs = [(n, first) for n in episodes for first in range(0, self.trajectories.lengths[n], stride)]
        return np.array(pairs)


def choose_env(
    requested: str | None, sources: Mapping[str, tuple[str, Trajectories]]
) -> tuple[str | None, dict[str, Any] | None]:
    """Return the id of the environment of all sources, and its specification where known; or the requested id, as
    registered. None for no environment.

    Raises:
        ValueError: if the sources have different environments.
    """
    identities = [spec_identity(env_id, trajectories.env_spec) for env_id, trajectories in sources.values()]
    if requested == NO_ENVIRONMENT:
        return None, None
    if requested:
        recorded = [
            other for other in identities if other["id"] == requested and other != spec_identity(requested, None)
        ]
        if recorded:
            there = format_identity(recorded[0])
            warn_data(f"data.env_id={requested} is taken as it is registered here; the data were played in {there}")
        return requested, None
    if any(other != identities[0] for other in identities):
        names = sorted({format_identity(other) for other in identities})
        raise ValueError(f"data.path mixes environments ({', '.join(names)}); name one file, or several of one")
    ((env_id, _), *_), specs = sources.values(), [trajectories.env_spec for _, trajectories in sources.values()]
    if env_id == NO_ENVIRONMENT:
        source = next(iter(sources))
        warn_data(f"{source} names no environment: nothing is played, and what is known of actions is what occurs")
        return None, None
    return env_id, next((spec for spec in specs if spec is not None), None)
