"""Rollouts: many environments played in parallel by one policy.

Shapes: N episodes · n active episodes · T time limit · S state width · A width of an action
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.archives import check_room
from domains.data_warnings import warn_data
from domains.rl.actions import make_actions
from domains.rl.env_checker import CheckedEnv, fit_to_space, warn_outside_space
from domains.rl.env_specs import format_env, spec_of, spec_to_dict
from domains.rl.environments import describe_env
from domains.rl.float32 import warn_coarse
from domains.rl.states import shape_and_dtype
from domains.rl.trajectories import Trajectories


@runtime_checkable
class Policy(Protocol):
    """Chooses the actions of the active episodes from the `trajectories` so far."""

    def __call__(self, trajectories: Trajectories, active: np.ndarray, step: int) -> np.ndarray:
        """Return the actions (n,) or (n, A) of the active episodes (indices (n,)), which are all at the same step."""
        ...


def rollout(env: str | EnvSpec, policy: Policy, seeds: Sequence[int], first: int = 0) -> Trajectories:
    """Play one episode per seed. Each environment has its own seed: an episode does not depend on the others.

    The environments are plain ones, not Gymnasium's vector environments, which also step finished episodes: here a
    finished episode leaves the batch. States are stored in float64 where float32 cannot represent them.

    Args:
        env: the id of an environment, or its specification (`domains.rl.env_specs`).
        policy: chooses the actions.
        seeds: (N,).
        first: number of the first episode, for error messages.
    Raises:
        ValueError: if the environment is not supported (`domains.rl.environments.describe_env`), or its replies are
            invalid (`domains.rl.env_checker`).
    """
    description = describe_env(env)
    envs = [CheckedEnv(env, n) for n in range(first, first + len(seeds))]
    observation_space, actions = envs[0].env.observation_space, envs[0].env.action_space
    assert observation_space.dtype is not None
    if "low" in description and np.issubdtype(actions.dtype, np.integer):
        warn_data(f"the actions of {format_env(env)} are whole numbers ({actions}): what a policy chooses is rounded")
    states = [made.reset(int(seed)) for made, seed in zip(envs, seeds, strict=True)]
    exact = not all(
        np.can_cast(kind, np.float32) for kind in (observation_space.dtype, *(state.dtype for state in states))
    )
    trajectories, rewards = (
        empty_trajectories(len(seeds), description, exact=exact),
        np.zeros((len(seeds), description["max_episode_steps"])),
    )
    trajectories.seeds, trajectories.final_states = np.array(seeds, np.int64), np.zeros_like(trajectories.states[:, 0])
    trajectories.env_spec = spec_to_dict(env if isinstance(env, EnvSpec) else spec_of(envs[0].env, env))
    for step in range(description["max_episode_steps"]):
        active = np.flatnonzero(~(trajectories.terminated | trajectories.truncated))
        if len(active) == 0:
            break
        trajectories.states[active, step] = [states[n] for n in active]
        trajectories.lengths[active] += 1
        chosen = fit_to_space(actions, np.asarray(policy(trajectories, active, step), trajectories.actions.dtype))
        trajectories.actions[active, step] = chosen
        for n, action in zip(active, chosen, strict=True):
            states[n], rewards[n, step], trajectories.terminated[n], trajectories.truncated[n] = envs[n].step(action)
        trajectories.rewards[active, step] = rewards[active, step]
    trajectories.truncated |= ~trajectories.terminated  # cut off here if a wrapper would go on
    trajectories.final_states[:] = states
    for made in envs:
        made.close()
    warn_outside_space(observation_space, trajectories, format_env(env))
    warn_coarse("rewards", rewards[trajectories.step_mask], format_env(env))
    return trajectories


def empty_trajectories(episodes: int, description: dict[str, Any], *, exact: bool = False) -> Trajectories:
    """Return zeros for episodes of an environment (`describe_env`); `exact`: vector states in float64."""
    N, T, actions = episodes, description["max_episode_steps"], make_actions(description)
    shape, kind = shape_and_dtype(description["state_shape"])
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
