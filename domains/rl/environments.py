"""Gymnasium's environments, and ours: what they are, and what a return in them is worth.

Shapes: S state width · A number of actions, or width of one
"""

import os
from difflib import get_close_matches
from typing import Any

import gymnasium
import numpy as np

import domains.rl.key_to_door  # registers it  # noqa: F401
from domains.rl.states import described, told
from domains.rl.trajectories import Trajectories

EXTRAS = {"envs.mujoco": "mujoco", "envs.box2d": "box2d"}  # part of the entry point: extra in pyproject.toml

# Mean return of random actions, and of the best of DLR-RM/rl-trained-agents' policies, here with Gymnasium 1.4 and
# MuJoCo 4.0 over 3 to 10 episodes; LunarLander: of Gymnasium's own controller; Key-to-Door: the most that there is.
REFERENCES = {
    "CartPole-v1": (23.3, 500.0),
    "Acrobot-v1": (-500.0, -69.0),
    "MountainCar-v0": (-200.0, -109.0),
    "MountainCarContinuous-v0": (-32.9, 96.5),
    "Pendulum-v1": (-1215.0, -168.0),
    "LunarLander-v3": (-163.0, 267.0),
    "LunarLanderContinuous-v3": (-221.0, 282.0),
    "BipedalWalker-v3": (-103.0, 301.0),
    "Hopper-v5": (17.1, 3625.0),
    "HalfCheetah-v5": (-271.5, 12140.0),
    "Walker2d-v5": (1.18, 4530.0),
    "Ant-v5": (-68.0, 5220.0),
    "Swimmer-v5": (0.0, 356.0),
    "KeyToDoor-v0": (0.06, 1.0),
}
# Those of D4RL (Fu et al. 2020), for v2 of these environments and for data that are not ours.
D4RL = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}


def make(env_id: str, **options: Any) -> gymnasium.Env:
    """The environment of this id.

    An id may stand in someone else's file, and one like my_module:MyEnv-v0 imports that module, which runs it: only the
    modules named in $ATTEND_MODULES, with commas between them, are.

    Raises:
        ValueError: if Gymnasium knows none, or a package that it needs is not installed.
    """
    module, colon, _ = env_id.rpartition(":")
    if colon and module not in os.environ.get("ATTEND_MODULES", "").split(","):
        raise ValueError(f"{env_id} imports the module {module}; if you trust it, set ATTEND_MODULES={module}")
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        entry = str(gymnasium.spec(env_id).entry_point)
        extra = next((f"pip install -e '.[{extra}]'" for part, extra in EXTRAS.items() if part in entry), str(error))
        raise ValueError(f"{env_id} needs a package that is not installed: {extra}") from error
    except (gymnasium.error.Error, ImportError) as error:
        near = get_close_matches(env_id, list(gymnasium.registry), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; an environment id looks like CartPole-v1"
        raise ValueError(f"Gymnasium knows no environment {env_id!r}{hint}") from error


def describe(env_id: str) -> dict[str, Any]:
    """What a model must know of an environment.

    Returns:
        "limit", the time limit T; "states", the state width S, or the shape of an image; and "actions", their number,
        or "low" and "high", (A,) each, the bounds of actions that are vectors.
    Raises:
        ValueError: if there is no such environment, or it has no time limit, states that are neither vectors nor
            images, or actions of another kind.
    """
    env = make(env_id)
    limit, space, actions = env.spec and env.spec.max_episode_steps, env.observation_space, env.action_space
    env.close()
    box = isinstance(space, gymnasium.spaces.Box)
    if not (limit and box and (len(space.shape) == 1 or (len(space.shape) in (2, 3) and space.dtype == np.uint8))):
        raise ValueError(
            f"{env_id} cannot be played: it needs a time limit and states that are vectors, or images of bytes, not"
            f" {space}"
        )
    about: dict[str, Any] = {"limit": limit, "states": described(space.shape)}
    match actions:
        case gymnasium.spaces.Discrete(start=0):
            return about | {"actions": int(actions.n)}
        case gymnasium.spaces.Box(shape=(_,)) if actions.is_bounded():
            return about | {"low": actions.low.tolist(), "high": actions.high.tolist()}
    possible = "a Discrete space from 0, or vectors within bounds"
    raise ValueError(f"{env_id} cannot be played: its actions must be {possible}, not {actions}")


def describe_data(played: Trajectories) -> dict[str, Any]:
    """The same of episodes without an environment: what occurs in them is all that there is.

    A number of an action that never changes gets room on both sides, as much as it is large and at least 1.
    """
    about: dict[str, Any] = {"limit": played.states.shape[1], "states": described(played.states.shape[2:])}
    taken = played.actions[played.real]
    if taken.ndim == 1:
        return about | {"actions": int(taken.max()) + 1}
    low, high = taken.min(0), taken.max(0)
    room = np.where(low < high, 0, np.maximum(np.abs(low), 1))
    return about | {"low": (low - room).tolist(), "high": (high + room).tolist()}


def check_fit(played: Trajectories, env_id: str, source: str) -> None:
    """Raises ValueError if these episodes, which `source` brought, cannot be of this environment."""
    found, about, taken = describe_data(played), describe(env_id), played.actions[played.real]
    wrong = []
    if found["states"] != about["states"]:
        wrong.append(f"states have {told(found['states'])} and not {told(about['states'])}")
    if found["limit"] > about["limit"]:
        wrong.append(f"longest episode has {found['limit']} steps and not at most {about['limit']}")
    match found, about:
        case {"actions": _}, {"actions": count}:
            if taken.max() >= count:
                wrong.append(f"actions go up to {taken.max()} and not to {count - 1}")
        case {"low": low}, {"low": least, "high": most} if len(low) == len(least):
            slack = 1e-4 * (np.array(most) - least)  # a file may have been rounded
            if (taken.min(0) < least - slack).any() or (taken.max(0) > most + slack).any():
                wrong.append(f"actions go beyond the bounds from {least} to {most}")
        case _:
            wrong.append(f"actions are {_kind(found)} and not {_kind(about)}")
    if wrong:
        raise ValueError(
            f"{source} does not fit {env_id}: its {'; its '.join(wrong)}. Name its own environment by"
            " data.environment=…, or train without one by data.environment=none"
        )


def _kind(about: dict[str, Any]) -> str:
    return "whole numbers" if "actions" in about else f"vectors of {len(about['low'])} numbers"


def normalised(env_id: str, value: float) -> dict[str, float]:
    """100 · (return - random) / (reference - random), by our references, and by D4RL's where it has any.

    Source: Fu et al. 2020.

    Neither compares with published tables: our data are not D4RL's, and v5 of an environment is not v2.
    """
    known = {"normalised": REFERENCES.get(env_id), "normalised_d4rl": D4RL.get(env_id.removesuffix("-v5"))}
    return {name: 100 * (value - pair[0]) / (pair[1] - pair[0]) for name, pair in known.items() if pair}
