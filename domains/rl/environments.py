"""Gymnasium's environments, and ours: their spaces, and reference returns.

Shapes: S state width · A number of actions, or width of one
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

import domains.rl.key_to_door  # registers it  # noqa: F401
from domains.data_warnings import warn_data
from domains.rl.env_specs import check_module, format_env, spec_differences, spec_from_dict, unknown_env_error
from domains.rl.states import format_state_shape, to_state_shape
from domains.rl.trajectories import Trajectories

MAX_STEPS = 10**6  # of an episode: a model may embed each
# Exceptions that the code of an environment may raise.
ENV_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
)
ENV_ERRORS += (ValueError, ImportError, gymnasium.error.Error)
EXTRAS = {"envs.mujoco": "mujoco", "envs.box2d": "box2d"}  # part of the entry point: extra in pyproject.toml

# Mean return of random actions, and of the best policy of DLR-RM/rl-trained-agents, measured with Gymnasium 1.4 and
# MuJoCo 4.0 over 3 to 10 episodes; LunarLander: of Gymnasium's own controller; Key-to-Door: the maximum.
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
# The references of D4RL (Fu et al. 2020), for v2 of these environments and for D4RL's data.
D4RL = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}


class EnvNotInstalled(ValueError):
    """A package that an environment needs is not installed."""


class EnvNotRecreated(ValueError):
    """An environment cannot be made from its specification."""


def make(env: str | EnvSpec, **options: Any) -> gymnasium.Env:
    """Make the environment of an id, or of a specification (`domains.rl.env_specs.spec_from_dict`).

    Raises:
        ValueError: if the id is unknown, a package is missing, or the environment cannot be made.
    """
    env_id = env if isinstance(env, str) else env.id
    check_module(env_id)
    try:
        return gymnasium.make(env, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        entry = str(gymnasium.spec(env_id.rpartition(":")[2]).entry_point)
        extra = next((f"pip install -e '.[{extra}]'" for part, extra in EXTRAS.items() if part in entry), str(error))
        raise EnvNotInstalled(f"{env_id} needs a package that is not installed: {extra}") from error
    except ENV_ERRORS as error:
        new = env_id.rpartition(":")[2] not in gymnasium.registry
        if new and isinstance(error, gymnasium.error.Error | ImportError):
            raise unknown_env_error(env_id) from error
        raise ValueError(f"{format_env(env)} cannot be made: {format_error(error)}") from error


def format_error(error: BaseException) -> str:
    """Return an exception of an environment's code as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")


def recreate_env(spec: dict[str, Any]) -> str | EnvSpec:
    """Return the environment of a data set or a model as it was recorded.

    Args:
        spec: "env_id"; "env_spec" (`domains.rl.env_specs.spec_to_dict`), where it is known; and the description of a
            model, if it is a model's spec.
    Returns:
        The specification, or the id where only that is known.
    Raises:
        ValueError: if it cannot be made again here.
    """
    env_id, values = spec["env_id"], spec.get("env_spec")
    if values is None:
        return env_id
    try:
        if not isinstance(values, dict) or values.get("id") != env_id:
            raise ValueError("its specification is of another id")
        env = spec_from_dict(values)
        description = describe_env(env)
        if "state_shape" in spec and (wrong := spec_mismatches(spec, description)):
            raise ValueError(f"the model has {', '.join(wrong)}")
    except EnvNotInstalled:
        raise
    except ValueError as error:
        raise EnvNotRecreated(
            f"{env_id} cannot be made again as it was recorded, and nothing is played: {error}"
        ) from error
    return env


def recreate_env_or_warn(spec: dict[str, Any]) -> str | EnvSpec | None:
    """Return `recreate_env`, or None if there is no environment, or (with a warning) if it cannot be made again."""
    if spec["env_id"] is None:
        return None
    try:
        return recreate_env(spec)
    except EnvNotRecreated as error:
        warn_data(str(error))
        return None


def spec_mismatches(spec: dict[str, Any], description: dict[str, Any]) -> list[str]:
    """Return the reasons why a model of this spec cannot play an environment (`describe_env`)."""
    return [
        f"{key} {spec.get(key)} and not {value}"
        for key, value in description.items()
        if (spec.get(key) != value if key != "max_episode_steps" else spec[key] < value)
    ]


def describe_env(env: str | EnvSpec) -> dict[str, Any]:
    """Return what a model must know of an environment.

    Returns:
        "max_episode_steps", T; "state_shape", the state width S or the shape of an image; and "num_actions", or the
        bounds "low" and "high", (A,) each, of vector actions.
    Raises:
        ValueError: if the environment does not exist or has no time limit, or its spaces are not supported.
    """
    instance = make(env)
    limit, space, actions = (
        instance.spec and instance.spec.max_episode_steps,
        instance.observation_space,
        instance.action_space,
    )
    instance.close()
    name = f"{format_env(env)} cannot be played"
    if not limit:
        raise ValueError(
            f"{name}: it has no time limit; register it with max_episode_steps=N, or give attend collect"
            " max_episode_steps=N"
        )
    if limit > MAX_STEPS:
        raise ValueError(f"{name}: its max_episode_steps={limit} is more than {MAX_STEPS:,}; give a lower one")
    box = isinstance(space, gymnasium.spaces.Box)
    if not (box and (len(space.shape) == 1 or (len(space.shape) in (2, 3) and space.dtype == np.uint8))):
        raise ValueError(f"{name}: it needs states that are vectors, or images of bytes, not {space}")
    description: dict[str, Any] = {"max_episode_steps": limit, "state_shape": to_state_shape(space.shape)}
    match actions:
        case gymnasium.spaces.Discrete(start=0):
            return description | {"num_actions": int(actions.n)}
        case gymnasium.spaces.Box(shape=(_,)) if actions.is_bounded() and not beyond_float32(actions):
            return description | {"low": actions.low.tolist(), "high": actions.high.tolist()}
    possible = "a Discrete space from 0, or vectors within bounds (whole ones up to 2^24)"
    raise ValueError(f"{name}: its actions must be {possible}, not {actions}")


def beyond_float32(space: gymnasium.spaces.Box) -> bool:
    """Return whether float32 cannot represent the integers of a space."""
    return space.dtype.kind in "iu" and max(abs(int(bound)) for bound in (space.low.min(), space.high.max())) > 2**24


def describe_trajectories(trajectories: Trajectories) -> dict[str, Any]:
    """Return the description (`describe_env`) of episodes without an environment, from the values that occur.

    The bounds of an action component that never changes are widened on both sides by its size, at least 1.
    """
    description: dict[str, Any] = {
        "max_episode_steps": trajectories.states.shape[1],
        "state_shape": to_state_shape(trajectories.states.shape[2:]),
    }
    actions_taken = trajectories.actions[trajectories.step_mask]
    if actions_taken.ndim == 1:
        return description | {"num_actions": int(actions_taken.max()) + 1}
    low, high = actions_taken.min(0), actions_taken.max(0)
    room = np.where(low < high, 0, np.maximum(np.abs(low), 1))
    return description | {"low": (low - room).tolist(), "high": (high + room).tolist()}


def check_env_match(trajectories: Trajectories, env: str | EnvSpec, source: str) -> None:
    """Raise ValueError if episodes from `source` cannot come from this environment."""
    found, description, actions_taken = (
        describe_trajectories(trajectories),
        describe_env(env),
        trajectories.actions[trajectories.step_mask],
    )
    wrong = []
    if found["state_shape"] != description["state_shape"]:
        wrong.append(
            f"states have {format_state_shape(found['state_shape'])}"
            f" and not {format_state_shape(description['state_shape'])}"
        )
    if found["max_episode_steps"] > description["max_episode_steps"]:
        wrong.append(
            f"longest episode has {found['max_episode_steps']} steps and not at most {description['max_episode_steps']}"
        )
    match found, description:
        case {"num_actions": _}, {"num_actions": count}:
            if actions_taken.max() >= count:
                wrong.append(f"actions go up to {actions_taken.max()} and not to {count - 1}")
        case {"low": low}, {"low": least, "high": most} if len(low) == len(least):
            slack = 1e-4 * (np.array(most) - least)  # a file may have been rounded
            if (actions_taken.min(0) < least - slack).any() or (actions_taken.max(0) > most + slack).any():
                wrong.append(f"actions go beyond the bounds from {least} to {most}")
        case _:
            wrong.append(f"actions are {_action_kind(found)} and not {_action_kind(description)}")
    if wrong:
        raise ValueError(
            f"{source} does not fit {format_env(env)}: its {'; its '.join(wrong)}. Name its own environment by"
            " data.env_id=…, or train without one by data.env_id=none"
        )


def _action_kind(description: dict[str, Any]) -> str:
    return "whole numbers" if "num_actions" in description else f"vectors of {len(description['low'])} numbers"


def normalized_scores(env: str | EnvSpec, value: float) -> dict[str, float]:
    """Return 100 · (return - random) / (reference - random), by our references, and by D4RL's where it has some.

    Source: Fu et al. 2020.

    Neither is comparable with published tables: our data are not D4RL's, and v5 of an environment is not v2. There is
    no score for other arguments, time limits or wrappers than the registered ones.
    """
    if isinstance(env, EnvSpec) and spec_differences(env):
        return {}
    env_id = env if isinstance(env, str) else env.id
    known = {"normalised": REFERENCES.get(env_id), "normalised_d4rl": D4RL.get(env_id.removesuffix("-v5"))}
    return {name: 100 * (value - pair[0]) / (pair[1] - pair[0]) for name, pair in known.items() if pair}
