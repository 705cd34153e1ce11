"""Checks of environments: their replies must follow Gymnasium's API and fit a trajectory file.

Shapes: n episodes · S state width · A width of an action
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.data_warnings import warn_data
from domains.rl.env_specs import format_env
from domains.rl.environments import ENV_ERRORS, format_error, make
from domains.rl.float32 import MAX_MAGNITUDE
from domains.rl.trajectories import Trajectories


class CheckedEnv:
    """One environment, for one episode.

    An environment may change the action in place, and may return the same array at every step: both are copied.

    Args:
        env: an id or a specification.
        episode: its number, for error messages.
    Raises:
        ValueError: from `reset` and `step`, with the episode and the step, for replies that Gymnasium does not allow,
            are not finite, or exceed float32; and for exceptions of its code.
    """

    def __init__(self, env: str | EnvSpec, episode: int):
        self.env, self.name, self.episode, self.step_number = make(env), format_env(env), episode, 0
        self.shape, self.images = self.env.observation_space.shape, self.env.observation_space.dtype == np.uint8
        self.dtype: Any = self.env.action_space.dtype

    def reset(self, seed: int) -> np.ndarray:
        """Return the first observation."""
        reply = self._call(self.env.reset, seed=seed)
        if not (isinstance(reply, tuple) and len(reply) == 2):
            raise self._error("reset gives no (observation, info)")
        return self._observation(reply[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Return observation, reward, terminated, truncated."""
        reply = self._call(self.env.step, np.array(action, self.dtype)[()])
        self.step_number += 1
        if not (isinstance(reply, tuple) and len(reply) == 5):
            raise self._error("step gives no (observation, reward, terminated, truncated, info)")
        observation, reward, *over = reply
        reward, ends = (
            self._number(reward, "reward"),
            [self._number(value, "terminated or truncated") for value in over[:2]],
        )
        if not abs(reward) <= MAX_MAGNITUDE:
            raise self._error(f"the reward is {reward:.3g}, which is not finite, or too large for float32")
        if not all(end in (0, 1) for end in ends):
            raise self._error(f"terminated and truncated are {ends}, and not true or false")
        return self._observation(observation), reward, bool(ends[0]), bool(ends[1])

    def close(self) -> None:
        self._call(self.env.close)

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except ENV_ERRORS as error:
            raise self._error(f"{method.__name__} raised {format_error(error)}") from error

    def _observation(self, observation: Any) -> np.ndarray:
        try:
            array = np.array(observation)
        except ValueError as error:
            raise self._error(f"the observation is no array ({error})") from error
        if array.shape != self.shape or array.dtype.kind not in ("biu" if self.images else "biuf"):
            space = self.env.observation_space
            raise self._error(f"the observation is {array.shape} of {array.dtype}, and its space {space}")
        if self.images and array.dtype != np.uint8 and not (0 <= array.min() <= array.max() <= 255):
            raise self._error("the image has values beyond bytes")
        if array.dtype.kind == "f" and not np.all(np.abs(array) <= MAX_MAGNITUDE):
            raise self._error(f"the observation is not finite, or too large for float32: {array}")
        return array

    def _number(self, value: Any, what: str) -> float:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self._error(f"{what} is {' '.join(repr(value).split())[:60]}, and not one number")
        return float(array.item())

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{self.name}, episode {self.episode}, step {self.step_number}: {' '.join(what.split())}")


def fit_to_space(space: gymnasium.Space, actions: np.ndarray) -> np.ndarray:
    """Return actions (n,) or (n, A) in the dtype of the action space and clipped to its bounds; integers are rounded.

    Raises:
        ValueError: for actions that are not finite.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        return actions
    if not np.isfinite(actions).all():
        raise ValueError("the policy chose an action that is not finite; its weights may have diverged")
    if space.dtype.kind in "iu":
        actions = np.rint(actions)
    low, high = space.low.astype(actions.dtype), space.high.astype(actions.dtype)
    return np.clip(np.clip(actions, low, high).astype(space.dtype), space.low, space.high)


def warn_outside_space(space: gymnasium.Space, trajectories: Trajectories, name: str) -> None:
    """Warn about observations outside of their space, with a count."""
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype == np.uint8:
        return
    array, step_mask = trajectories.states, trajectories.step_mask
    outside = (((array < space.low) | (array > space.high)).any(-1)) & step_mask  # (N, T)
    if step_number := int(outside.sum()):
        episode, step = np.argwhere(outside)[0]
        warn_data(
            f"{step_number} of {step_mask.sum()} observations of {name} are outside of its own {space}"
            f" (first: episode {episode}, step {step}); they are kept as they are"
        )
