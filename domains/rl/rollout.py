"""Episodes: many environments played side by side by one policy.

Shapes: N episodes · n of them still running · T time limit · S state width · A width of an action
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.archives import check_room
from domains.data_warnings import warn_data
from domains.rl.actions import make_actions
from domains.rl.checked import CheckedEnv, given, say_what_was_outside
from domains.rl.environments import describe
from domains.rl.precision import say_what_is_coarse
from domains.rl.specs import named, plain, spec_of
from domains.rl.states import shape_and_kind
from domains.rl.trajectories import Trajectories


@runtime_checkable
class Policy(Protocol):
    """Chooses for the episodes that still run; everything played so far lies in `played`."""

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        """Numbers of the running episodes (n,) and the time step they are all at, to their actions (n,) or (n, A)."""
        ...


def rollout(env: str | EnvSpec, policy: Policy, seeds: Sequence[int], first: int = 0) -> Trajectories:
    """One episode for each seed. Each environment is seeded on its own, so that its episode is the same in any company.

    They are plain environments and not Gymnasium's vector ones, which step those that are over as well: here an episode
    that is over leaves the batch. States are kept in float64 where the environment has more than float32 holds.

    Args:
        env: the id of an environment, or its specification (`domains.rl.specs`).
        policy: who plays.
        seeds: (N,).
        first: number of the first episode, for complaints.
    Raises:
        ValueError: if the environment cannot be played (`domains.rl.environments.describe`), or its replies are none
            (`domains.rl.checked`).
    """
    about = describe(env)
    envs = [CheckedEnv(env, n) for n in range(first, first + len(seeds))]
    seen, actions = envs[0].env.observation_space, envs[0].env.action_space
    assert seen.dtype is not None
    if "low" in about and np.issubdtype(actions.dtype, np.integer):
        warn_data(f"the actions of {named(env)} are whole numbers ({actions}): what a policy chooses is rounded")
    states = [made.reset(int(seed)) for made, seed in zip(envs, seeds, strict=True)]
    exact = not all(np.can_cast(kind, np.float32) for kind in (seen.dtype, *(state.dtype for state in states)))
    played, rewards = nothing_played(len(seeds), about, exact=exact), np.zeros((len(seeds), about["limit"]))
    played.seeds, played.finals = np.array(seeds, np.int64), np.zeros_like(played.states[:, 0])
    played.env_spec = plain(env if isinstance(env, EnvSpec) else spec_of(envs[0].env, env))
    for step in range(about["limit"]):
        running = np.flatnonzero(~(played.terminated | played.truncated))
        if len(running) == 0:
            break
        played.states[running, step] = [states[n] for n in running]
        played.lengths[running] += 1
        taken = given(actions, np.asarray(policy(played, running, step), played.actions.dtype))
        played.actions[running, step] = taken
        for n, action in zip(running, taken, strict=True):
            states[n], rewards[n, step], played.terminated[n], played.truncated[n] = envs[n].step(action)
        played.rewards[running, step] = rewards[running, step]
    played.truncated |= ~played.terminated  # cut off here, if a wrapper let it go on
    played.finals[:] = states
    for made in envs:
        made.close()
    say_what_was_outside(seen, played, named(env))
    say_what_is_coarse("rewards", rewards[played.real], named(env))
    return played


def nothing_played(episodes: int, about: dict[str, Any], *, exact: bool = False) -> Trajectories:
    """Room for episodes of an environment of which `about` is known (`describe`); `exact`: vectors in float64."""
    N, T, actions = episodes, about["limit"], make_actions(about)
    shape, kind = shape_and_kind(about["states"])
    kind = np.float64 if exact and kind is np.float32 else kind
    check_room(N * T * prod(shape) * np.dtype(kind).itemsize, f"{N} episodes of up to {T:,} steps")
    return Trajectories(
        states=np.zeros((N, T, *shape), kind),
        actions=np.zeros((N, T, *actions.shape), actions.dtype),
        rewards=np.zeros((N, T), np.float32),
        lengths=np.zeros(N, np.int64),
        terminated=np.zeros(N, bool),
        truncated=np.zeros(N, bool),
    )
