"""Key-to-Door: an action in the first room decides the reward in the last one.

Source: Mesnard et al. 2021 (counterfactual credit assignment), in the form of Chen et al. 2021; their code was not
published, so the sizes are ours.
"""

from typing import Any

import gymnasium
import numpy as np

SIDE = 3  # of a room
STEPS = 3  # in each room; a corner is two steps away
ROOMS = 3
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


class KeyToDoor(gymnasium.Env):
    """Three rooms of 3×3 cells, three steps in each: the first has a key, the second nothing, the third a door.

    The agent starts each room in the middle; key and door lie in other cells. Stepping on the key takes it, but no
    later observation shows that. The episode ends at the door, with a reward of 1 if the agent has the key; or after
    nine steps.

    Observations, (15,): one-hot room, row and column of the agent, row and column of the key or door if one is in
    the room. Actions: 0 up, 1 right, 2 down, 3 left; walls hold.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (ROOMS + 4 * SIDE,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        middle = SIDE * SIDE // 2
        cells = self.np_random.integers(SIDE * SIDE - 1, size=2).tolist()
        self.key, self.door = (divmod(cell + (cell >= middle), SIDE) for cell in cells)
        self.position, self.time, self.has_key = (SIDE // 2, SIDE // 2), 0, False
        return self._observation(), {}

    def step(self, action):
        (row, column), (down, right) = self.position, MOVES[action]
        self.position = (min(max(row + down, 0), SIDE - 1), min(max(column + right, 0), SIDE - 1))
        room = self._room()
        self.has_key |= room == 0 and self.position == self.key
        opened = room == ROOMS - 1 and self.position == self.door
        self.time += 1
        if self.time % STEPS == 0:
            self.position = (SIDE // 2, SIDE // 2)
        terminated = opened or self.time == ROOMS * STEPS
        return self._observation(), float(opened and self.has_key), terminated, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(ROOMS + 4 * SIDE, np.float32)
        observation[self._room()] = 1
        for n, cell in enumerate((*self.position, *(self._visible_object() or ()))):
            observation[ROOMS + n * SIDE + cell] = 1
        return observation

    def _room(self) -> int:
        return min(self.time // STEPS, ROOMS - 1)

    def _visible_object(self) -> tuple[int, int] | None:
        return (None if self.has_key else self.key, None, self.door)[self._room()]

    def render(self) -> np.ndarray:
        """Draw the room from above: the agent blue, key or door orange, the walls green once the agent has the key."""
        room = np.full((SIDE + 2, SIDE + 2, 3), 255, np.uint8)
        room[[0, -1]] = room[:, [0, -1]] = (90, 170, 90) if self.has_key else (90, 90, 90)
        for cell, colour in ((self._visible_object(), (240, 150, 40)), (self.position, (50, 100, 220))):
            if cell:
                room[cell[0] + 1, cell[1] + 1] = colour
        return room.repeat(12, axis=0).repeat(12, axis=1)


gymnasium.register("KeyToDoor-v0", f"{__name__}:KeyToDoor", max_episode_steps=ROOMS * STEPS)
