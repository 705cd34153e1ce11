"""Trajectories in three splits, shown as windows of a few time steps.

Shapes: B batch · K context, in time steps · N episodes · S state width
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domains.adapter import Batch
from domains.data import DomainData
from domains.data_warnings import warn_data
from domains.rl.cartpole import CARTPOLE, cartpole
from domains.rl.config import DataConfig, Source
from domains.rl.environments import MOST_STEPS, check_fit, describe, describe_data, playable
from domains.rl.minari import from_minari
from domains.rl.precision import offset, say_what_is_coarse, say_what_is_hardly_seen, say_what_needs_an_offset
from domains.rl.specs import identity, worded
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
        counts = self._load()
        self.to_go = self.played.returns_to_go(delayed=c.delayed)  # (N, T)
        self.splits = self._split(counts)
        shown = self._shown()
        self.offset, train = offset(shown), self.splits["train"]
        returns = self.played.returns[train]
        say_what_needs_an_offset(shown)
        say_what_is_hardly_seen(np.atleast_1d(shown.std(0 if shown.ndim == 2 else None, dtype=np.float64)))
        say_what_is_coarse("returns", returns, "the training episodes")
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
        states = self._shown()
        axis = 0 if states.ndim == 2 else None  # all pixels together
        mean, returns = states.mean(axis, dtype=np.float64), self.played.returns[self.splits["train"]]
        return {
            "environment": self.environment,
            **self.about,
            "env_spec": self.env_spec,
            "context": self.config.context,
            "recall": self.config.recall.value,
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
        """As `domains.rl.trajectories.windows` describes it."""
        episodes, first = self.starts[split][list(indices)].T  # (B,), (B,)
        return windows(self.played, self.to_go, episodes, first, self.config.context, self.offset)

    def _shown(self) -> np.ndarray:
        """The states of the training episodes, (steps, S) or images."""
        return np.concatenate([self.played.states[n, : self.played.lengths[n]] for n in self.splits["train"]])

    def _load(self) -> list[int]:
        """Set the episodes, their environment and what is known of it; return how many each source has."""
        c = self.config
        if c.source is Source.cartpole:
            found = {CARTPOLE: (CARTPOLE, cartpole(c.episodes, self.seed))}
        elif c.source is Source.minari:
            found = {f"data.name={c.name}": from_minari(c.name)}
        elif not c.path:
            raise ValueError("data=trajectories needs data.path=FILE.npz; attend collect env=… writes such a file")
        else:
            found = {path: read(path) for path in ([c.path] if isinstance(c.path, str) else map(str, c.path))}
        parts = [played for _, played in found.values()]
        self.environment, self.env_spec = chosen_environment(c.environment, found)
        env = playable({"environment": self.environment, "env_spec": self.env_spec})
        for source, part in zip(found, parts, strict=True):
            if len(part.lengths) < 3:
                raise ValueError(f"{source} has {len(part.lengths)} episodes; each of three splits needs one")
            if env is not None:
                check_fit(part, env, source)
        self.played = join(parts) if len(parts) > 1 else parts[0]
        self.about = describe_data(self.played) if env is None else describe(env)
        limit = (self.env_spec or {}).get("max_episode_steps") if env is None else None
        if type(limit) is int and self.about["limit"] < limit <= MOST_STEPS:
            self.about["limit"] = limit
        return [len(part.lengths) for part in parts]

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


def chosen_environment(
    asked: str | None, found: Mapping[str, tuple[str, Trajectories]]
) -> tuple[str | None, dict[str, Any] | None]:
    """The id of the environment that all sources were played in, and its specification where one is known; or the one
    that is asked for, as it is registered. None for none.

    Raises:
        ValueError: if sources were played in different ones.
    """
    told = [identity(env_id, played.env_spec) for env_id, played in found.values()]
    if asked == NO_ENVIRONMENT:
        return None, None
    if asked:
        recorded = [other for other in told if other["id"] == asked and other != identity(asked, None)]
        if recorded:
            there = worded(recorded[0])
            warn_data(f"data.environment={asked} is taken as it is registered here; the data were played in {there}")
        return asked, None
    if any(other != told[0] for other in told):
        names = sorted({worded(other) for other in told})
        raise ValueError(f"data.path mixes environments ({', '.join(names)}); name one file, or several of one")
    ((env_id, _), *_), specs = found.values(), [played.env_spec for _, played in found.values()]
    if env_id == NO_ENVIRONMENT:
        source = next(iter(found))
        warn_data(f"{source} names no environment: nothing is played, and what is known of actions is what occurs")
        return None, None
    return env_id, next((spec for spec in specs if spec is not None), None)
