"""Plays the environment that a run was trained on, and shows it."""

import csv
import json
import os
import sys
import warnings
from collections.abc import Container
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from domains.rl.adapter import Adapter
from domains.rl.agents import make_agent
from domains.rl.checked import given
from domains.rl.environments import FAULTS, fault, make, remade
from domains.rl.rollout import rollout
from domains.rl.specs import named
from domains.rl.trajectories import Trajectories

EPISODES = 5
EVERY = 3  # every third frame is shown; of a long episode fewer, so that there are at most MOST
MOST = 200
WIDTH = 300  # pixels of a frame


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Play some episodes of the environment `source` for the best return in the training data.

    Writes episodes.csv (a line for each step), episodes.json (their returns) and episode.gif, the first of them. An
    environment that has no pictures, or that cannot draw them here, leaves the last out with a warning.

    Raises:
        ValueError: if `source` is not the environment that the run was trained on; nothing is written then.
    """
    env = played_in(adapter, source)
    target, seeds = adapter.spec["best_return"], list(range(EPISODES))
    played = rollout(env, make_agent(adapter, [target] * EPISODES, seeds), seeds)

    folder.mkdir(parents=True, exist_ok=True)
    write_steps(folder / "episodes.csv", target, played, delayed=adapter.spec.get("delayed", False))
    write_summary(folder / "episodes.json", named(env), target if adapter.config.returns else None, seeds, played)
    film = write_film(folder / "episode.gif", env, seeds[0], played.actions[0, : played.lengths[0]])
    return [folder / "episodes.csv", folder / "episodes.json", *film]


def played_in(adapter: Adapter, source: str) -> str | EnvSpec:
    """The environment that the run was trained on, as it was recorded.

    Raises:
        ValueError: if `source` names another, or there is none, or it cannot be made again.
    """
    env = adapter.spec["environment"]
    if env is None:
        raise ValueError("this run was trained by data.environment=none: there is nothing to play")
    if source != env:
        near = get_close_matches(source, list(gymnasium.registry), n=1)
        unknown = "" if source in gymnasium.registry else ", and Gymnasium knows no environment of that name"
        hint = f" (did you mean {near[0]}?)" if unknown and near and near[0] != env else ""
        raise ValueError(f"this run was trained on {env}: give input={env}, not {source!r}{unknown}{hint}")
    return remade(adapter.spec)


def write_summary(path: Path, env: str, target: float | None, seeds: list[int], played: Trajectories) -> None:
    columns = {
        "seed": seeds,
        "return": played.returns.tolist(),
        "steps": played.lengths.tolist(),
        "terminated": played.terminated.tolist(),
        "truncated": played.truncated.tolist(),
    }
    episodes = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    mean = float(played.returns.mean())
    summary = {"environment": env, "target_return": target, "mean_return": mean, "episodes": episodes}
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def write_steps(path: Path, target: float, played: Trajectories, *, delayed: bool) -> None:
    """A line for each step of each episode."""
    to_go = played.returns_to_go(np.full(len(played.lengths), target), delayed=delayed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        width = played.states.shape[2] if played.states.ndim == 3 else 0  # images are left out
        state = [f"state_{i}" for i in range(width)]
        action = [f"action_{i}" for i in range(played.actions.shape[2])] if played.actions.ndim == 3 else ["action"]
        rows.writerow(["episode", "step", "return_to_go", *state, *action, "reward"])
        for n, length in enumerate(played.lengths):
            for t in range(length):
                actions = np.atleast_1d(played.actions[n, t])
                values = (to_go[n, t], *played.states[n, t].flat[:width], *actions, played.rewards[n, t])
                rows.writerow([n, t, *(f"{value:.12g}" if abs(value) >= 1e6 else f"{value:g}" for value in values)])


def write_film(path: Path, env: str | EnvSpec, seed: int, actions: np.ndarray) -> list[Path]:
    """The path, if there is something to see and it can be drawn here."""
    every = max(EVERY, -(-len(actions) // MOST))
    frames, fps = drawn(path.name, env, seed, actions, range(0, len(actions), every))
    if not frames:
        return []
    milliseconds = 10 * round(100 * every / fps)  # a GIF counts in hundredths
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return [path]


def drawn(
    name: str, env: str | EnvSpec, seed: int, actions: np.ndarray, steps: Container[int]
) -> tuple[list[Image.Image], float]:
    """`replay`, or no frames and a warning that `name` is left out where the environment cannot be drawn."""
    try:
        return replay(env, seed, actions, steps)
    except FAULTS as error:
        hint = "; MuJoCo draws without a screen by MUJOCO_GL=egl (libegl1) or osmesa (libosmesa6)"
        mujoco = hint if "mujoco" in entry_point(env) else ""
        warnings.warn(
            f"{name} is left out: {named(env)} cannot be drawn here ({str(error) or fault(error)}){mujoco}",
            stacklevel=3,
        )
        return [], 0.0


def replay(
    env: str | EnvSpec, seed: int, actions: np.ndarray, steps: Container[int]
) -> tuple[list[Image.Image], float]:
    """The episode that these actions make, before each of some steps, drawn without a window; and frames a second."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo would look for one
    follow = {"camera_name": "track"} if "gymnasium.envs.mujoco" in entry_point(env) else {}
    made: Any = make(env, render_mode="rgb_array", **follow)  # MuJoCo's free camera lets a walker walk out of sight
    made.reset(seed=seed)
    frames = []
    for step, action in enumerate(given(made.action_space, actions)):
        if step in steps:
            image = Image.fromarray(np.asarray(made.render()))
            frames.append(image.resize((WIDTH, round(WIDTH * image.height / image.width))).quantize(16))
        made.step(np.array(action)[()])
    made.close()
    return frames, made.metadata.get("render_fps", 50)


def entry_point(env: str | EnvSpec) -> str:
    """Return the entry point of an environment, such as gymnasium.envs.mujoco.hopper_v5:HopperEnv."""
    return str((gymnasium.spec(env.rpartition(":")[2]) if isinstance(env, str) else env).entry_point)
