"""CartPole played on the spot by scripted controllers of mixed skill: the data that need no file.

Shapes: N episodes
"""

import numpy as np

from domains.rl.rollout import rollout
from domains.rl.trajectories import Trajectories

CARTPOLE = "CartPole-v1"


def cartpole(episodes: int, seed: int) -> Trajectories:
    """So many episodes of CartPole, each by a controller of its own, from hopeless to perfect.

    Raises:
        ValueError: if there are fewer than three episodes, one for each split.
    """
    if episodes < 3:
        raise ValueError(f"data.episodes={episodes} is too few: each of the three splits needs at least one")
    rng = np.random.default_rng((seed, episodes))
    controllers = CartPoleControllers(episodes, rng)
    return rollout(CARTPOLE, controllers, rng.integers(2**31, size=episodes).tolist())


class CartPoleControllers:
    """One linear controller for each episode: push right where gains · (x, ẋ, θ, θ̇) > 0, but at random now and then.

    Args:
        episodes: N.
        rng: draws the controllers, and every random push.
    """

    def __init__(self, episodes: int, rng: np.random.Generator):
        self.rng = rng
        self.gains = rng.uniform((-0.5, -0.5, 0, 0), (1, 1.5, 10, 2), size=(episodes, 4))
        self.random = rng.uniform(0, 0.6, size=episodes)  # chance of a random push at any step

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        push = (self.gains[running] * played.states[running, step]).sum(1) > 0
        blind = self.rng.random(len(running)) < self.random[running]
        return np.where(blind, self.rng.integers(0, 2, len(running)), push)
