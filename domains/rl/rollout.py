"""Episodes: many environments played side by side, by scripted controllers or by a decision transformer.

Shapes: N episodes · n of them still running · T time limit · K context · S state width · A width of an action
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from domains.adapter import Batch, to_device
from domains.rl.actions import make_actions
from domains.rl.adapter import Adapter


@dataclass
class Trajectories:
    """Episodes as arrays, right-padded with zeros: only the first `lengths` steps of each are real.

    Attributes:
        states: (N, T, S), float32. What each action was chosen in; the state after the last action is left out.
        actions: (N, T), int64, their numbers; or (N, T, A), float32, vectors in the units of the environment.
        rewards: (N, T), float32, for the action of the same step.
        lengths: (N,), steps played.
        terminated: (N,), bool: the episode ended by the task's own rules.
        truncated: (N,), bool: it was cut off by the time limit, so that its return is a lower bound.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """(N,): the sum of an episode's rewards, undiscounted."""
        return self.rewards.sum(1, dtype=np.float64)

    def returns_to_go(self, totals: np.ndarray | None = None) -> np.ndarray:
        """(N, T): what is left of `totals` (the returns if None) before each step, R_t = total - r_0 - … - r_{t-1}."""
        totals = self.returns if totals is None else totals
        before = np.cumsum(self.rewards, axis=1) - self.rewards
        return totals[:, None] - before


def windows(played: Trajectories, to_go: np.ndarray, episodes: np.ndarray, first: np.ndarray, context: int) -> Batch:
    """What the model is shown of `episodes` (B,): `context` steps K from the step `first` (B,) on.

    Returns:
        "returns" (B, K), the returns-to-go; "states" (B, K, S); "actions" (B, K) or (B, K, A); "steps" (B, K), the
        time steps; "real" (B, K), False on the padding at the right.
    """
    at = first[:, None] + np.arange(context)  # (B, K)
    real = at < played.lengths[episodes, None]
    episodes, at = episodes[:, None], np.minimum(at, played.actions.shape[1] - 1)
    batch = {
        "returns": to_go[episodes, at].astype(np.float32),
        "states": played.states[episodes, at],
        "actions": played.actions[episodes, at],
        "steps": at,
        "real": real,
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()}


class Policy(Protocol):
    """Chooses for the episodes that still run; everything played so far lies in `played`."""

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        """Numbers of the running episodes (n,) and the time step they are all at, to their actions (n,) or (n, A)."""
        ...


def rollout(env_id: str, policy: Policy, seeds: Sequence[int]) -> Trajectories:
    """One episode for each seed. Each environment is seeded on its own, so that its episode is the same in any company.

    Raises:
        ValueError: if the environment cannot be played (`describe`).
    """
    N, about = len(seeds), describe(env_id)
    T, S, actions = about["limit"], about["states"], make_actions(about)
    envs = [gymnasium.make(env_id, disable_env_checker=True) for _ in seeds]
    played = Trajectories(
        states=np.zeros((N, T, S), np.float32),
        actions=np.zeros((N, T, *actions.shape), actions.dtype),
        rewards=np.zeros((N, T), np.float32),
        lengths=np.zeros(N, np.int64),
        terminated=np.zeros(N, bool),
        truncated=np.zeros(N, bool),
    )
    states = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
    for step in range(T):
        running = np.flatnonzero(~(played.terminated | played.truncated))
        if len(running) == 0:
            break
        played.states[running, step] = [states[n] for n in running]
        played.lengths[running] += 1
        played.actions[running, step] = policy(played, running, step)
        for n in running:
            outcome = envs[n].step(played.actions[n, step])
            states[n], played.rewards[n, step], played.terminated[n], played.truncated[n], _ = outcome
    for env in envs:
        env.close()
    return played


def describe(env_id: str) -> dict[str, Any]:
    """What a model must know of an environment.

    Returns:
        "limit", the time limit T; "states", the state width S; and "actions", their number, or "low" and "high", (A,)
        each, the bounds of actions that are vectors.
    Raises:
        ValueError: if the environment has no time limit, states that are no vectors, or actions of another kind.
    """
    env = gymnasium.make(env_id, disable_env_checker=True)
    limit, space, actions = env.spec and env.spec.max_episode_steps, env.observation_space, env.action_space
    env.close()
    if not (limit and isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
        raise ValueError(f"{env_id} cannot be played: it needs a time limit and states that are vectors, not {space}")
    about = {"limit": limit, "states": space.shape[0]}
    match actions:
        case gymnasium.spaces.Discrete(start=0):
            return about | {"actions": int(actions.n)}
        case gymnasium.spaces.Box(shape=(_,)) if actions.is_bounded():
            return about | {"low": actions.low.tolist(), "high": actions.high.tolist()}
    possible = "a Discrete space from 0, or vectors within bounds"
    raise ValueError(f"{env_id} cannot be played: its actions must be {possible}, not {actions}")


class ReturnConditioned:
    """A decision transformer that is asked for a return.

    It sees the last K steps, with what is left of the return it was asked for, and acts as it predicts: a number is
    drawn, a vector is taken as it is (`domains.rl.actions`).

    Args:
        adapter: the trained model; its `spec` says what K is.
        targets: (N,), the return asked of each episode.
        seeds: (N,), for the draws of each episode.
    """

    def __init__(self, adapter: Adapter, targets: Sequence[float], seeds: Sequence[int]):
        self.adapter, self.context = adapter.eval(), adapter.spec["context"]
        self.targets = np.asarray(targets, np.float32)
        self.rngs = [np.random.default_rng((int(seed), 1)) for seed in seeds]

    @torch.inference_mode()
    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        seen = min(step + 1, self.context)
        first = np.full(len(running), step + 1 - seen)
        batch = windows(played, played.returns_to_go(self.targets), running, first, seen)
        predictions = self.adapter(to_device(batch, self.adapter.device))[:, -1]  # (n, A)
        return self.adapter.actions.act(predictions, [self.rngs[n] for n in running])
