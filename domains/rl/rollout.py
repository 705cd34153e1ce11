"""Episodes: many environments played side by side by one policy.

Shapes: N episodes · n of them still running · T time limit · S state width · A width of an action
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from domains.rl.actions import make_actions
from domains.rl.environments import describe, make
from domains.rl.states import shape_and_kind
from domains.rl.trajectories import Trajectories


@runtime_checkable
class Policy(Protocol):
    """Chooses for the episodes that still run; everything played so far lies in `played`."""

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        """Numbers of the running episodes (n,) and the time step they are all at, to their actions (n,) or (n, A)."""
        ...


def rollout(env_id: str, policy: Policy, seeds: Sequence[int]) -> Trajectories:
    """One episode for each seed. Each environment is seeded on its own, so that its episode is the same in any company.

    They are plain environments and not Gymnasium's vector ones, which step those that are over as well: here an episode
    that is over leaves the batch.

    Raises:
        ValueError: if the environment cannot be played (`domains.rl.environments.describe`).
    """
    about = describe(env_id)
    envs = [make(env_id) for _ in seeds]
    played = nothing_played(len(seeds), about)
    played.seeds, played.finals = np.array(seeds, np.int64), np.zeros_like(played.states[:, 0])
    states = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
    for step in range(about["limit"]):
        running = np.flatnonzero(~(played.terminated | played.truncated))
        if len(running) == 0:
            break
        played.states[running, step] = [states[n] for n in running]
        played.lengths[running] += 1
        played.actions[running, step] = policy(played, running, step)
        for n in running:
            outcome = envs[n].step(played.actions[n, step])
            states[n], played.rewards[n, step], played.terminated[n], played.truncated[n], _ = outcome
    played.finals[:] = states
    for env in envs:
        env.close()
    return played


def nothing_played(episodes: int, about: dict[str, Any]) -> Trajectories:
    """Room for episodes of an environment of which `about` is known (`describe`)."""
    N, T, actions = episodes, about["limit"], make_actions(about)
    shape, kind = shape_and_kind(about["states"])
    return Trajectories(
        states=np.zeros((N, T, *shape), kind),
        actions=np.zeros((N, T, *actions.shape), actions.dtype),
        rewards=np.zeros((N, T), np.float32),
        lengths=np.zeros(N, np.int64),
        terminated=np.zeros(N, bool),
        truncated=np.zeros(N, bool),
    )
