"""Play the environment that a run was trained on, and show it."""

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
from domains.rl.agents import make_policy
from domains.rl.env_checker import fit_to_space
from domains.rl.env_specs import format_env
from domains.rl.environments import ENV_ERRORS, format_error, make, recreate_env
from domains.rl.rollout import rollout
from domains.rl.trajectories import Trajectories

EPISODES = 5
FRAME_STRIDE = 3  # stride of the shown frames; larger for long episodes, for at most MAX_FRAMES
MAX_FRAMES = 200
WIDTH = 300  # pixels of a frame


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Play some episodes of the environment `source` for the best return in the training data.

    Writes episodes.csv (a line for each step), episodes.json (their returns) and episode.gif, the first episode. If the
    environment cannot be rendered here, the GIF is left out with a warning.

    Raises:
        ValueError: if `source` is not the environment that the run was trained on; nothing is written then.
    """
    env = run_env(adapter, source)
    target, seeds = adapter.spec["best_return"], list(range(EPISODES))
    trajectories = rollout(env, make_policy(adapter, [target] * EPISODES, seeds), seeds)

    folder.mkdir(parents=True, exist_ok=True)
    write_steps(folder / "episodes.csv", target, trajectories, delayed=adapter.spec.get("delayed", False))
    write_summary(
        folder / "episodes.json",
        format_env(env),
        target if adapter.config.return_conditioned else None,
        seeds,
        trajectories,
    )
    film = write_gif(folder / "episode.gif", env, seeds[0], trajectories.actions[0, : trajectories.lengths[0]])
    return [folder / "episodes.csv", folder / "episodes.json", *film]


def run_env(adapter: Adapter, source: str) -> str | EnvSpec:
    """Return the environment that the run was trained on, as it was recorded.

    Raises:
        ValueError: if `source` names another, or there is none, or it cannot be recreated.
    """
    env = adapter.spec["env_id"]
    if env is None:
        raise ValueError("this run was trained by data.env_id=none: there is nothing to play")
    if source != env:
        near = get_close_matches(source, list(gymnasium.registry), n=1)
        unknown = "" if source in gymnasium.registry else ", and Gymnasium knows no environment of that name"
        hint = f" (did you mean {near[0]}?)" if unknown and near and near[0] != env else ""
        raise ValueError(f"this run was trained on {env}: give input={env}, not {source!r}{unknown}{hint}")
    return recreate_env(adapter.spec)


def write_summary(path: Path, env: str, target: float | None, seeds: list[int], trajectories: Trajectories) -> None:
    columns = {
        "seed": seeds,
        "return": trajectories.returns.tolist(),
        "steps": trajectories.lengths.tolist(),
        "terminated": trajectories.terminated.tolist(),
        "truncated": trajectories.truncated.tolist(),
    }
    episodes = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    mean = float(trajectories.returns.mean())
    summary = {"environment": env, "target_return": target, "mean_return": mean, "episodes": episodes}
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def write_steps(path: Path, target: float, trajectories: Trajectories, *, delayed: bool) -> None:
    """Write a line for each step of each episode."""
    returns_to_go = trajectories.returns_to_go(np.full(len(trajectories.lengths), target), delayed=delayed)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        width = trajectories.states.shape[2] if trajectories.states.ndim == 3 else 0  # image states are left out
        state = [f"state_{i}" for i in range(width)]
        action = (
            [f"action_{i}" for i in range(trajectories.actions.shape[2])]
            if trajectories.actions.ndim == 3
            else ["action"]
        )
        rows.writerow(["episode", "step", "return_to_go", *state, *action, "reward"])
        for n, length in enumerate(trajectories.lengths):
            for t in range(length):
                actions = np.atleast_1d(trajectories.actions[n, t])
                values = (
                    returns_to_go[n, t],
                    *trajectories.states[n, t].flat[:width],
                    *actions,
                    trajectories.rewards[n, t],
                )
                rows.writerow([n, t, *(f"{value:.12g}" if abs(value) >= 1e6 else f"{value:g}" for value in values)])


def write_gif(path: Path, env: str | EnvSpec, seed: int, actions: np.ndarray) -> list[Path]:
    """Write an episode as a GIF. Return its path, or nothing if the environment cannot be rendered here."""
    every = max(FRAME_STRIDE, -(-len(actions) // MAX_FRAMES))
    frames, fps = replay_or_warn(path.name, env, seed, actions, range(0, len(actions), every))
    if not frames:
        return []
    milliseconds = 10 * round(100 * every / fps)  # a GIF counts in hundredths of a second
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return [path]


def replay_or_warn(
    name: str, env: str | EnvSpec, seed: int, actions: np.ndarray, steps: Container[int]
) -> tuple[list[Image.Image], float]:
    """Return `replay`, or no frames with a warning that `name` is left out if the environment cannot be rendered."""
    try:
        return replay(env, seed, actions, steps)
    except ENV_ERRORS as error:
        hint = "; MuJoCo draws without a screen by MUJOCO_GL=egl (libegl1) or osmesa (libosmesa6)"
        mujoco = hint if "mujoco" in entry_point(env) else ""
        warnings.warn(
            f"{name} is left out: {format_env(env)} cannot be drawn here ({str(error) or format_error(error)}){mujoco}",
            stacklevel=3,
        )
        return [], 0.0


def replay(
    env: str | EnvSpec, seed: int, actions: np.ndarray, steps: Container[int]
) -> tuple[list[Image.Image], float]:
    """Replay an episode's actions; return the frames before the given steps, and the frames per second."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame prints a greeting
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # render without a screen
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo would look for a screen
    follow = {"camera_name": "track"} if "gymnasium.envs.mujoco" in entry_point(env) else {}
    made: Any = make(env, render_mode="rgb_array", **follow)  # MuJoCo's free camera does not follow
    made.reset(seed=seed)
    frames = []
    for step, action in enumerate(fit_to_space(made.action_space, actions)):
        if step in steps:
            image = Image.fromarray(np.asarray(made.render()))
            frames.append(image.resize((WIDTH, round(WIDTH * image.height / image.width))).quantize(16))
        made.step(np.array(action)[()])
    made.close()
    return frames, made.metadata.get("render_fps", 50)


def entry_point(env: str | EnvSpec) -> str:
    """Return the entry point of an environment, such as gymnasium.envs.mujoco.hopper_v5:HopperEnv."""
    return str((gymnasium.spec(env.rpartition(":")[2]) if isinstance(env, str) else env).entry_point)
