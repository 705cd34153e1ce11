"""Environments whose replies are checked: what Gymnasium asks of them, and what a file of trajectories can hold.

Shapes: n episodes · S state width · A width of an action
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from domains.data_warnings import warn_data
from domains.rl.environments import FAULTS, fault, make
from domains.rl.precision import LARGEST
from domains.rl.specs import named
from domains.rl.trajectories import Trajectories


class CheckedEnv:
    """One environment, for one episode.

    An environment may change the action that it gets, and may show the same array at every step: both are copied.

    Args:
        env: what to make.
        episode: its number, for complaints.
    Raises:
        ValueError: from `reset` and `step`, with the episode and the step, for replies that Gymnasium does not allow,
            are not finite, or are beyond float32; and for whatever its code raises.
    """

    def __init__(self, env: str | EnvSpec, episode: int):
        self.env, self.name, self.episode, self.count = make(env), named(env), episode, 0
        self.shape, self.images = self.env.observation_space.shape, self.env.observation_space.dtype == np.uint8
        self.dtype: Any = self.env.action_space.dtype

    def reset(self, seed: int) -> np.ndarray:
        """The first observation."""
        reply = self._call(self.env.reset, seed=seed)
        if not (isinstance(reply, tuple) and len(reply) == 2):
            raise self._wrong("reset gives no (observation, info)")
        return self._observation(reply[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """Observation, reward, terminated, truncated."""
        reply = self._call(self.env.step, np.array(action, self.dtype)[()])
        self.count += 1
        if not (isinstance(reply, tuple) and len(reply) == 5):
            raise self._wrong("step gives no (observation, reward, terminated, truncated, info)")
        observation, reward, *over = reply
        reward, ends = (
            self._number(reward, "reward"),
            [self._number(value, "terminated or truncated") for value in over[:2]],
        )
        if not abs(reward) <= LARGEST:
            raise self._wrong(f"the reward is {reward:.3g}, which is not finite, or too large for float32")
        if not all(end in (0, 1) for end in ends):
            raise self._wrong(f"terminated and truncated are {ends}, and not true or false")
        return self._observation(observation), reward, bool(ends[0]), bool(ends[1])

    def close(self) -> None:
        self._call(self.env.close)

    def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except FAULTS as error:
            raise self._wrong(f"{method.__name__} raised {fault(error)}") from error

    def _observation(self, observation: Any) -> np.ndarray:
        try:
            seen = np.array(observation)
        except ValueError as error:
            raise self._wrong(f"the observation is no array ({error})") from error
        if seen.shape != self.shape or seen.dtype.kind not in ("biu" if self.images else "biuf"):
            space = self.env.observation_space
            raise self._wrong(f"the observation is {seen.shape} of {seen.dtype}, and its space {space}")
        if self.images and seen.dtype != np.uint8 and not (0 <= seen.min() <= seen.max() <= 255):
            raise self._wrong("the image has values beyond bytes")
        if seen.dtype.kind == "f" and not np.all(np.abs(seen) <= LARGEST):
            raise self._wrong(f"the observation is not finite, or too large for float32: {seen}")
        return seen

    def _number(self, value: Any, what: str) -> float:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self._wrong(f"{what} is {' '.join(repr(value).split())[:60]}, and not one number")
        return float(array.item())

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"{self.name}, episode {self.episode}, step {self.count}: {' '.join(what.split())}")


def given(space: gymnasium.Space, chosen: np.ndarray) -> np.ndarray:
    """Chosen actions (n,) or (n, A) as the environment gets them: of the dtype of its space and within its bounds,
    which a dtype of ours may miss by rounding. Whole numbers are rounded.

    Raises:
        ValueError: for actions that are not finite.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        return chosen
    if not np.isfinite(chosen).all():
        raise ValueError("the policy chose an action that is not finite; its weights may have diverged")
    if space.dtype.kind in "iu":
        chosen = np.rint(chosen)
    low, high = space.low.astype(chosen.dtype), space.high.astype(chosen.dtype)
    return np.clip(np.clip(chosen, low, high).astype(space.dtype), space.low, space.high)


def say_what_was_outside(space: gymnasium.Space, played: Trajectories, name: str) -> None:
    """Warn of observations outside of their own space, with a count."""
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype == np.uint8:
        return
    seen, real = played.states, played.real
    outside = (((seen < space.low) | (seen > space.high)).any(-1)) & real  # (N, T)
    if count := int(outside.sum()):
        episode, step = np.argwhere(outside)[0]
        warn_data(
            f"{count} of {real.sum()} observations of {name} are outside of its own {space}"
            f" (first: episode {episode}, step {step}); they are kept as they are"
        )
