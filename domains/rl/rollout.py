"""Episodes: many environments played side by side, by scripted controllers or by a decision transformer.

Shapes: N episodes · n of them still running · T time limit · K context · S state width · A actions
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import gymnasium
import numpy as np
import torch

from domains.adapter import Batch, to_device
from domains.rl.adapter import Adapter


@dataclass
class Trajectories:
    """Episodes as arrays, right-padded with zeros: only the first `lengths` steps of each are real.

    Attributes:
        states: (N, T, S), float32. What each action was chosen in; the state after the last action is left out.
        actions: (N, T), int64.
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
        "returns" (B, K), the returns-to-go; "states" (B, K, S); "actions" (B, K); "steps" (B, K), the time steps;
        "real" (B, K), False on the padding at the right.
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
        """Args: numbers of the running episodes (n,), the time step they are all at. Returns: their actions (n,)."""
        ...


def rollout(env_id: str, policy: Policy, seeds: Sequence[int]) -> Trajectories:
    """One episode for each seed. Each environment is seeded on its own, so that its episode is the same in any company.

    Raises:
        ValueError: if the environment has no time limit, or other than flat states and discrete actions.
    """
    N, (T, S, _) = len(seeds), sizes(env_id)
    envs = [gymnasium.make(env_id, disable_env_checker=True) for _ in seeds]
    played = Trajectories(
        states=np.zeros((N, T, S), np.float32),
        actions=np.zeros((N, T), np.int64),
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
            outcome = envs[n].step(played.actions[n, step].item())
            states[n], played.rewards[n, step], played.terminated[n], played.truncated[n], _ = outcome
    for env in envs:
        env.close()
    return played


def sizes(env_id: str) -> tuple[int, int, int]:
    """The time limit T, the state width S and the number of actions A of an environment."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    limit, space, actions = env.spec and env.spec.max_episode_steps, env.observation_space, env.action_space
    env.close()
    if not (limit and isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
        raise ValueError(f"{env_id} cannot be played: it needs a time limit and states that are vectors, not {space}")
    if not (isinstance(actions, gymnasium.spaces.Discrete) and actions.start == 0):
        raise ValueError(f"{env_id} cannot be played: its actions must be a Discrete space from 0, not {actions}")
    return limit, space.shape[0], int(actions.n)


class ReturnConditioned:
    """A decision transformer that is asked for a return.

    It sees the last K steps, with what is left of the return it was asked for, and draws from the distribution that it
    predicts (so do the Atari experiments of Chen et al. 2021). Drawn actions have the mistakes that belong to a return;
    the likeliest action at every step leaves them out, and so overshoots a low target.

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
        logits = self.adapter(to_device(batch, self.adapter.device))[:, -1]  # (n, A)
        chances = logits.double().softmax(-1).cpu().numpy()
        draws = np.array([self.rngs[n].random() for n in running])
        return np.minimum((chances.cumsum(-1) < draws[:, None]).sum(-1), chances.shape[-1] - 1)
