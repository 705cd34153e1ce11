"""Collection of trajectories with any policies.

Shapes: N episodes
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.data_warnings import warn_data
from domains.rl.adapter import Adapter
from domains.rl.agents import make_policy
from domains.rl.env_specs import format_env, registered_spec, spec_differences
from domains.rl.environments import describe_env, recreate_env_or_warn, spec_mismatches
from domains.rl.policies import ControllerPolicy, NoisyPolicy, make_controller
from domains.rl.rollout import Policy, rollout
from domains.rl.trajectories import Trajectories, join

PARALLEL_EPISODES = 64  # episodes that are played in parallel


def collect(
    env: str | EnvSpec,
    policies: Sequence[str],
    episodes: int,
    noise: float,
    seed: int,
    runs: Mapping[str, Adapter] | None = None,
    target: float | None = None,
) -> tuple[Trajectories, dict[str, Any]]:
    """Play episodes with each policy in turn, each with a noise level drawn from [0, `noise`].

    Args:
        env: a Gymnasium id, or a specification (`env_for_runs`).
        policies: their names (`make_controller`).
        episodes: of all policies together.
        noise: the highest noise level.
        seed: of the episodes.
        runs: the policies that are trained models.
        target: the target return of the trained models; None for what they predict.
    Returns:
        The episodes, and arrays on their policies: "behaviours", the names; "episode_behaviour" and "episode_noise",
        (N,).
    Raises:
        ValueError: for an unsupported environment, a policy that does not fit, or invalid numbers.
    """
    if not policies:
        raise ValueError("collect needs a policy, and policy=[] names none; give one, such as policy=random")
    if episodes < 1 or not 0 <= noise < np.inf:
        raise ValueError(f"collect needs episodes >= 1 and a finite noise >= 0, got {episodes} and {noise}")
    description, env_id = describe_env(env), env if isinstance(env, str) else env.id
    runs = runs or {}
    if target is not None and not runs:
        raise ValueError(f"target={target:g} is asked of trained models alone: give policy=RUN_FOLDER with it")
    for name, adapter in runs.items():
        check_policy_fits(name, adapter, env_id, description)
    controllers = {name: make_controller(name, env_id, description) for name in policies if name not in runs}
    rng = np.random.default_rng(seed)
    seeds, noise_levels = rng.integers(2**31, size=episodes), rng.uniform(0, noise, episodes)
    policy_ids = np.arange(episodes) % len(policies)
    parts = []
    for first in range(0, episodes, PARALLEL_EPISODES):
        batch = slice(first, first + PARALLEL_EPISODES)
        batch_seeds, rngs = seeds[batch].tolist(), [np.random.default_rng((int(seed), 2)) for seed in seeds[batch]]
        asked = None if target is None else [target] * len(batch_seeds)
        players: list[Policy] = [
            make_policy(runs[name], asked, batch_seeds) if name in runs else ControllerPolicy(controllers[name], rngs)
            for name in policies
        ]
        parts.append(
            rollout(
                env, NoisyPolicy(players, policy_ids[batch], noise_levels[batch], rngs, description), batch_seeds, first
            )
        )
    return join(parts), {
        "behaviours": np.array(policies),
        "episode_behaviour": policy_ids,
        "episode_noise": noise_levels,
    }


def check_policy_fits(name: str, adapter: Adapter, env_id: str, description: dict[str, Any]) -> None:
    """Raise ValueError if a trained model cannot play an environment (`describe_env`)."""
    if wrong := spec_mismatches(adapter.spec, description):
        trained = adapter.spec["env_id"]
        raise ValueError(f"policy={name} was trained on {trained} and cannot play {env_id}: it has {', '.join(wrong)}")


def env_for_runs(env_id: str, runs: Mapping[str, Adapter], max_episode_steps: int | None = None) -> str | EnvSpec:
    """Return the environment of the runs, if they were trained on this id, else the registered one.

    `max_episode_steps` gives it another time limit.

    Raises:
        ValueError: for runs of different environments, or a limit below 1.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1")
    found = {name: run.spec for name, run in runs.items() if run.spec["env_id"] == env_id}
    specs = [env for spec in found.values() if isinstance(env := recreate_env_or_warn(spec), EnvSpec)]
    if any(spec != specs[0] for spec in specs):
        raise ValueError(f"policy={list(found)} were trained on different environments of the id {env_id}; name one")
    env = specs[0] if specs else env_id
    if specs and spec_differences(specs[0]):
        warn_data(f"played is {format_env(specs[0])}, which policy={next(iter(found))} was trained on")
    if max_episode_steps is None:
        return env
    spec = env if isinstance(env, EnvSpec) else registered_spec(env_id)
    return replace(spec, max_episode_steps=max_episode_steps)
