"""Trajectories made here, by any policies.

Shapes: N episodes
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.data_warnings import warn_data
from domains.rl.adapter import Adapter
from domains.rl.agents import make_agent
from domains.rl.environments import describe, differences, playable
from domains.rl.policies import Noisy, Sighted, make_controller
from domains.rl.rollout import Policy, rollout
from domains.rl.specs import changed, named, registered
from domains.rl.trajectories import Trajectories, join

LANES = 64  # episodes that are played side by side


def collect(
    env: str | EnvSpec,
    policies: Sequence[str],
    episodes: int,
    noise: float,
    seed: int,
    runs: Mapping[str, Adapter] | None = None,
    target: float | None = None,
) -> tuple[Trajectories, dict[str, Any]]:
    """So many episodes, by each policy in turn, each with as much noise as chance gives it, from 0 to `noise`.

    Args:
        env: an id of Gymnasium, or a specification (`recorded`).
        policies: their names (`make_controller`).
        episodes: of all policies together.
        noise: the most that an episode has.
        seed: the same one makes the same episodes.
        runs: those of the policies that are trained models.
        target: the return that these are asked for; None for what they predict themselves.
    Returns:
        The episodes, and who played them: "behaviours", the policies; "episode_behaviour" and "episode_noise", (N,).
    Raises:
        ValueError: for an environment that cannot be played, a policy that does not fit, or numbers that cannot be.
    """
    if not policies:
        raise ValueError("collect needs a policy, and policy=[] names none; give one, such as policy=random")
    if episodes < 1 or not 0 <= noise < np.inf:
        raise ValueError(f"collect needs episodes >= 1 and a finite noise >= 0, got {episodes} and {noise}")
    about, env_id = describe(env), env if isinstance(env, str) else env.id
    runs = runs or {}
    if target is not None and not runs:
        raise ValueError(f"target={target:g} is asked of trained models alone: give policy=RUN_FOLDER with it")
    for name, adapter in runs.items():
        check_player(name, adapter, env_id, about)
    controllers = {name: make_controller(name, env_id, about) for name in policies if name not in runs}
    rng = np.random.default_rng(seed)
    seeds, much = rng.integers(2**31, size=episodes), rng.uniform(0, noise, episodes)
    which = np.arange(episodes) % len(policies)
    parts = []
    for first in range(0, episodes, LANES):
        now = slice(first, first + LANES)
        own, rngs = seeds[now].tolist(), [np.random.default_rng((int(seed), 2)) for seed in seeds[now]]
        asked = None if target is None else [target] * len(own)
        players: list[Policy] = [
            make_agent(runs[name], asked, own) if name in runs else Sighted(controllers[name], rngs)
            for name in policies
        ]
        parts.append(rollout(env, Noisy(players, which[now], much[now], rngs, about), own, first))
    return join(parts), {"behaviours": np.array(policies), "episode_behaviour": which, "episode_noise": much}


def check_player(name: str, adapter: Adapter, env_id: str, about: dict[str, Any]) -> None:
    """Raises ValueError if a trained model cannot play an environment of which `about` is known (`describe`)."""
    if wrong := differences(adapter.spec, about):
        trained = adapter.spec["environment"]
        raise ValueError(f"policy={name} was trained on {trained} and cannot play {env_id}: it has {', '.join(wrong)}")


def recorded(env_id: str, runs: Mapping[str, Adapter], max_episode_steps: int | None = None) -> str | EnvSpec:
    """The environment that is to be played: that of the runs which play, if they were trained on one of this id; else
    what is registered. `max_episode_steps` gives it another time limit.

    Raises:
        ValueError: for runs of different environments, or a limit below 1.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1")
    found = {name: run.spec for name, run in runs.items() if run.spec["environment"] == env_id}
    specs = [env for spec in found.values() if isinstance(env := playable(spec), EnvSpec)]
    if any(spec != specs[0] for spec in specs):
        raise ValueError(f"policy={list(found)} were trained on different environments of the id {env_id}; name one")
    env = specs[0] if specs else env_id
    if specs and changed(specs[0]):
        warn_data(f"played is {named(specs[0])}, which policy={next(iter(found))} was trained on")
    if max_episode_steps is None:
        return env
    spec = env if isinstance(env, EnvSpec) else registered(env_id)
    return replace(spec, max_episode_steps=max_episode_steps)
