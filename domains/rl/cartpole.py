"""CartPole episodes of scripted controllers: data that need no file.

Shapes: N episodes
"""

import numpy as np

from domains.rl.rollout import rollout
from domains.rl.trajectories import Trajectories

CARTPOLE_ID = "CartPole-v1"


def collect_cartpole(episodes: int, seed: int) -> Trajectories:
    """Play episodes of CartPole, each with its own controller, from very bad to perfect.

    Raises:
        ValueError: if there are fewer than three episodes, one for each split.
    """
    if episodes < 3:
        raise ValueError(f"data.episodes={episodes} is too few: each of the three splits needs at least one")
    rng = np.random.default_rng((seed, episodes))
    controllers = CartPoleControllers(episodes, rng)
    return rollout(CARTPOLE_ID, controllers, rng.integers(2**31, size=episodes).tolist())


class CartPoleControllers:
    """One linear controller for each episode: push right where gains · (x, ẋ, θ, θ̇) > 0, or at random.

    Args:
        episodes: N.
        rng: draws the controllers and the random pushes.
    """

    def __init__(self, episodes: int, rng: np.random.Generator):
        self.rng = rng
        self.gains = rng.uniform((-0.5, -0.5, 0, 0), (1, 1.5, 10, 2), size=(episodes, 4))
        self.random = rng.uniform(0, 0.6, size=episodes)  # probability of a random push at each step

    def __call__(self, trajectories: Trajectories, active: np.ndarray, step: int) -> np.ndarray:
        push = (self.gains[active] * trajectories.states[active, step]).sum(1) > 0
        is_random = self.rng.random(len(active)) < self.random[active]
        return np.where(is_random, self.rng.integers(0, 2, len(active)), push)
