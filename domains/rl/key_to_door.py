"""Key-to-Door: what is done in the first room decides the reward in the last one.

Source: Mesnard et al. 2021 (counterfactual credit assignment), in the form of Chen et al. 2021; their code was not
published, so that the sizes here are our own.
"""

from typing import Any

import gymnasium
import numpy as np

SIDE = 3  # of a room
STEPS = 3  # in each room; a corner is two steps away
ROOMS = 3
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


class KeyToDoor(gymnasium.Env):
    """Three rooms of 3×3 places, three steps in each: the first has a key, the second nothing, the third a door.

    The agent starts each room in the middle; key and door lie anywhere else. Who steps on the key has it, but nothing
    shows so later. The episode ends at the door, with a reward of 1 for those who have the key; or after nine steps.

    Observations, (15,): which room, row and column of the agent, row and column of the key or door if there is one in
    sight, each as ones and zeros. Actions: 0 up, 1 right, 2 down, 3 left; walls hold.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (ROOMS + 4 * SIDE,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        middle = SIDE * SIDE // 2
        places = self.np_random.integers(SIDE * SIDE - 1, size=2).tolist()
        self.key, self.door = (divmod(place + (place >= middle), SIDE) for place in places)
        self.at, self.time, self.has_key = (SIDE // 2, SIDE // 2), 0, False
        return self._observation(), {}

    def step(self, action):
        (row, column), (down, right) = self.at, MOVES[action]
        self.at = (min(max(row + down, 0), SIDE - 1), min(max(column + right, 0), SIDE - 1))
        room = self._room()
        self.has_key |= room == 0 and self.at == self.key
        opened = room == ROOMS - 1 and self.at == self.door
        self.time += 1
        if self.time % STEPS == 0:
            self.at = (SIDE // 2, SIDE // 2)
        over = opened or self.time == ROOMS * STEPS
        return self._observation(), float(opened and self.has_key), over, False, {}

    def _observation(self) -> np.ndarray:
        one = np.zeros(ROOMS + 4 * SIDE, np.float32)
        one[self._room()] = 1
        for n, place in enumerate((*self.at, *(self._thing() or ()))):
            one[ROOMS + n * SIDE + place] = 1
        return one

    def _room(self) -> int:
        return min(self.time // STEPS, ROOMS - 1)

    def _thing(self) -> tuple[int, int] | None:
        return (None if self.has_key else self.key, None, self.door)[self._room()]

    def render(self) -> np.ndarray:
        """The room from above: the agent blue, key or door orange, the walls green for who has the key."""
        room = np.full((SIDE + 2, SIDE + 2, 3), 255, np.uint8)
        room[[0, -1]] = room[:, [0, -1]] = (90, 170, 90) if self.has_key else (90, 90, 90)
        for place, colour in ((self._thing(), (240, 150, 40)), (self.at, (50, 100, 220))):
            if place:
                room[place[0] + 1, place[1] + 1] = colour
        return room.repeat(12, axis=0).repeat(12, axis=1)


gymnasium.register("KeyToDoor-v0", f"{__name__}:KeyToDoor", max_episode_steps=ROOMS * STEPS)
