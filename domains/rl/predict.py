"""Plays the environment that a run was trained on, and shows it."""

import csv
import json
import os
from difflib import get_close_matches
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from domains.rl.adapter import Adapter
from domains.rl.rollout import ReturnConditioned, Trajectories, rollout

EPISODES = 5
EVERY = 3  # n-th frame of an episode is shown
MILLISECONDS = 20  # a step, as fast as CartPole is


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Play some episodes of the environment `source` for the best return in the training data.

    Writes episodes.csv (a line for each step), summary.json and episode.gif, the first of the episodes.

    Raises:
        ValueError: if `source` is not the environment that the run was trained on; nothing is written then.
    """
    env = adapter.spec["environment"]
    if source != env:
        near = get_close_matches(source, list(gymnasium.registry), n=1)
        unknown = "" if source in gymnasium.registry else ", and Gymnasium knows no environment of that name"
        hint = f" (did you mean {near[0]}?)" if unknown and near and near[0] != env else ""
        raise ValueError(f"this run was trained on {env}: give input={env}, not {source!r}{unknown}{hint}")
    target, seeds = adapter.spec["best_return"], list(range(EPISODES))
    played = rollout(env, ReturnConditioned(adapter, [target] * EPISODES, seeds), seeds)
    frames = replay(env, seeds[0], played.actions[0, : played.lengths[0]])

    folder.mkdir(parents=True, exist_ok=True)
    write_steps(folder / "episodes.csv", target, played)
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
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    frames[0].save(
        folder / "episode.gif", save_all=True, append_images=frames[1:], duration=MILLISECONDS * EVERY, loop=0
    )
    return [folder / "episodes.csv", folder / "summary.json", folder / "episode.gif"]


def write_steps(path: Path, target: float, played: Trajectories) -> None:
    """A line for each step of each episode."""
    to_go = played.returns_to_go(np.full(len(played.lengths), target))
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        state = [f"state_{i}" for i in range(played.states.shape[2])]
        action = [f"action_{i}" for i in range(played.actions.shape[2])] if played.actions.ndim == 3 else ["action"]
        rows.writerow(["episode", "step", "return_to_go", *state, *action, "reward"])
        for n, length in enumerate(played.lengths):
            for t in range(length):
                actions = np.atleast_1d(played.actions[n, t])
                values = (to_go[n, t], *played.states[n, t], *actions, played.rewards[n, t])
                rows.writerow([n, t, *(f"{value:g}" for value in values)])


def replay(env_id: str, seed: int, actions: np.ndarray) -> list[Image.Image]:
    """Every n-th frame of the episode that these actions make, drawn without a window."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no screen is needed
    env = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=seed)
    frames = []
    for step, action in enumerate(actions):
        if step % EVERY == 0:
            frames.append(Image.fromarray(np.asarray(env.render())).resize((300, 200)).quantize(16))
        env.step(action)
    env.close()
    return frames
