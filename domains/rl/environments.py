"""Gymnasium's environments, and ours: what they are, and what a return in them is worth.

Shapes: S state width · A number of actions, or width of one
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

import domains.rl.key_to_door  # registers it  # noqa: F401
from domains.data_warnings import warn_data
from domains.rl.specs import changed, check_module, named, trusted, unknown
from domains.rl.states import described, told
from domains.rl.trajectories import Trajectories

MOST_STEPS = 10**6  # of an episode: a model has room for each
# What the code of an environment may raise.
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError)
FAULTS += (ValueError, ImportError, gymnasium.error.Error)
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


class NotInstalled(ValueError):
    """A package that an environment needs is missing: here it cannot be made, elsewhere it can."""


class NotRemade(ValueError):
    """An environment cannot be made from its specification."""


def make(env: str | EnvSpec, **options: Any) -> gymnasium.Env:
    """The environment of this id, or of a specification (`domains.rl.specs.trusted`).

    Raises:
        ValueError: if Gymnasium knows none, a package that it needs is not installed, or it cannot be made.
    """
    env_id = env if isinstance(env, str) else env.id
    check_module(env_id)
    try:
        return gymnasium.make(env, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        entry = str(gymnasium.spec(env_id.rpartition(":")[2]).entry_point)
        extra = next((f"pip install -e '.[{extra}]'" for part, extra in EXTRAS.items() if part in entry), str(error))
        raise NotInstalled(f"{env_id} needs a package that is not installed: {extra}") from error
    except FAULTS as error:
        new = env_id.rpartition(":")[2] not in gymnasium.registry
        if new and isinstance(error, gymnasium.error.Error | ImportError):
            raise unknown(env_id) from error
        raise ValueError(f"{named(env)} cannot be made: {fault(error)}") from error


def fault(error: BaseException) -> str:
    """Return the error of an environment's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")


def remade(spec: dict[str, Any]) -> str | EnvSpec:
    """The environment of some data, or of a model with its "states", as it was recorded.

    Args:
        spec: "environment", the id; "env_spec", the plain values of `domains.rl.specs.plain`, where they are known; and
            perhaps what a model knows of it.
    Returns:
        The id where no more is known.
    Raises:
        ValueError: if it cannot be made again here.
    """
    env_id, told = spec["environment"], spec.get("env_spec")
    if told is None:
        return env_id
    try:
        if not isinstance(told, dict) or told.get("id") != env_id:
            raise ValueError("its specification is of another id")
        env = trusted(told)
        about = describe(env)
        if "states" in spec and (wrong := differences(spec, about)):
            raise ValueError(f"the model has {', '.join(wrong)}")
    except NotInstalled:
        raise
    except ValueError as error:
        raise NotRemade(f"{env_id} cannot be made again as it was recorded, and nothing is played: {error}") from error
    return env


def playable(spec: dict[str, Any]) -> str | EnvSpec | None:
    """`remade`; or None if there is no environment, or after a warning, if it cannot be made again."""
    if spec["environment"] is None:
        return None
    try:
        return remade(spec)
    except NotRemade as error:
        warn_data(str(error))
        return None


def differences(spec: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Return why a model of this spec cannot play an environment that `describe` gave `about`."""
    return [
        f"{key} {spec.get(key)} and not {value}"
        for key, value in about.items()
        if (spec.get(key) != value if key != "limit" else spec[key] < value)
    ]


def describe(env: str | EnvSpec) -> dict[str, Any]:
    """What a model must know of an environment.

    Returns:
        "limit", the time limit T; "states", the state width S, or the shape of an image; and "actions", their number,
        or "low" and "high", (A,) each, the bounds of actions that are vectors.
    Raises:
        ValueError: if there is no such environment, or it has no time limit, states that are neither vectors nor
            images, or actions of another kind.
    """
    made = make(env)
    limit, space, actions = made.spec and made.spec.max_episode_steps, made.observation_space, made.action_space
    made.close()
    name = f"{named(env)} cannot be played"
    if not limit:
        raise ValueError(
            f"{name}: it has no time limit; register it with max_episode_steps=N, or give attend collect"
            " max_episode_steps=N"
        )
    if limit > MOST_STEPS:
        raise ValueError(f"{name}: its max_episode_steps={limit} is more than {MOST_STEPS:,}; give a lower one")
    box = isinstance(space, gymnasium.spaces.Box)
    if not (box and (len(space.shape) == 1 or (len(space.shape) in (2, 3) and space.dtype == np.uint8))):
        raise ValueError(f"{name}: it needs states that are vectors, or images of bytes, not {space}")
    about: dict[str, Any] = {"limit": limit, "states": described(space.shape)}
    match actions:
        case gymnasium.spaces.Discrete(start=0):
            return about | {"actions": int(actions.n)}
        case gymnasium.spaces.Box(shape=(_,)) if actions.is_bounded() and not lossy(actions):
            return about | {"low": actions.low.tolist(), "high": actions.high.tolist()}
    possible = "a Discrete space from 0, or vectors within bounds (whole ones up to 2^24)"
    raise ValueError(f"{name}: its actions must be {possible}, not {actions}")


def lossy(space: gymnasium.spaces.Box) -> bool:
    """Whether float32 cannot hold the whole numbers of a space."""
    return space.dtype.kind in "iu" and max(abs(int(bound)) for bound in (space.low.min(), space.high.max())) > 2**24


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


def check_fit(played: Trajectories, env: str | EnvSpec, source: str) -> None:
    """Raises ValueError if these episodes, which `source` brought, cannot be of this environment."""
    found, about, taken = describe_data(played), describe(env), played.actions[played.real]
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
            f"{source} does not fit {named(env)}: its {'; its '.join(wrong)}. Name its own environment by"
            " data.environment=…, or train without one by data.environment=none"
        )


def _kind(about: dict[str, Any]) -> str:
    return "whole numbers" if "actions" in about else f"vectors of {len(about['low'])} numbers"


def normalised(env: str | EnvSpec, value: float) -> dict[str, float]:
    """100 · (return - random) / (reference - random), by our references, and by D4RL's where it has any.

    Source: Fu et al. 2020.

    Neither compares with published tables: our data are not D4RL's, and v5 of an environment is not v2. There are none
    for other arguments, time limits or wrappers than those that are registered.
    """
    if isinstance(env, EnvSpec) and changed(env):
        return {}
    env_id = env if isinstance(env, str) else env.id
    known = {"normalised": REFERENCES.get(env_id), "normalised_d4rl": D4RL.get(env_id.removesuffix("-v5"))}
    return {name: 100 * (value - pair[0]) / (pair[1] - pair[0]) for name, pair in known.items() if pair}
