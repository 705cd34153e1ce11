"""Trajectories made here, by any policies.

Shapes: N episodes
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domains.rl.adapter import Adapter
from domains.rl.agents import make_agent
from domains.rl.environments import describe
from domains.rl.policies import Noisy, Sighted, make_controller
from domains.rl.rollout import Policy, rollout
from domains.rl.trajectories import Trajectories, join

LANES = 64  # episodes that are played side by side


def collect(
    env_id: str,
    policies: Sequence[str],
    episodes: int,
    noise: float,
    seed: int,
    runs: Mapping[str, Adapter] | None = None,
    target: float | None = None,
) -> tuple[Trajectories, dict[str, Any]]:
    """So many episodes, by each policy in turn, each with as much noise as chance gives it, from 0 to `noise`.

    Args:
        env_id: of Gymnasium.
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
    about = describe(env_id)
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
        parts.append(rollout(env_id, Noisy(players, which[now], much[now], rngs, about), own))
    return join(parts), {"behaviours": np.array(policies), "episode_behaviour": which, "episode_noise": much}


def check_player(name: str, adapter: Adapter, env_id: str, about: dict[str, Any]) -> None:
    """Raises ValueError if a trained model cannot play an environment of which `about` is known (`describe`)."""
    spec = adapter.spec
    wrong = [
        f"{key} {spec.get(key)} and not {value}"
        for key, value in about.items()
        if (spec.get(key) != value if key != "limit" else spec[key] < value)
    ]
    if wrong:
        raise ValueError(
            f"policy={name} was trained on {spec['environment']} and cannot play {env_id}: it has {', '.join(wrong)}"
        )
