"""Plots during training: achieved over target returns."""

import csv
from pathlib import Path

import numpy as np

from domains.rl.adapter import Adapter
from domains.rl.data import Data
from domains.rl.environments import recreate_env
from domains.rl.evaluate import FIRST_SEED, HEADLINE_FRACTIONS, play_targets, target_return
from domains.rl.figures import draw_histogram, draw_returns

EPISODES = 5  # for each target, on seeds that no evaluation uses


def picture(adapter: Adapter, data: Data, path: Path) -> None:
    """Draw the returns of a few episodes, and append their means to returns.csv beside it: the learning curve.

    Raises:
        ValueError: if there is no environment to play.
    """
    env = recreate_env(adapter.spec)
    if env is None:
        raise ValueError("trainer.plot_every_n_steps plays the environment, and there is none (data.env_id=none)")
    train_returns, best = data.trajectories.returns[data.splits["train"]], adapter.spec["best_return"]
    parts = HEADLINE_FRACTIONS if adapter.config.return_conditioned else (1.0,)
    targets, _, trajectories = play_targets(
        adapter, env, {target_return(p, train_returns, best): EPISODES for p in parts}, FIRST_SEED // 2
    )
    if adapter.config.return_conditioned:
        draw_returns(np.array(targets), trajectories.returns, train_returns, path)
    else:
        draw_histogram(train_returns, trajectories.returns, path)
    curve = path.with_name("returns.csv")
    new = not curve.exists()
    with open(curve, "a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(["picture", "target", "return"])
        rows.writerows(
            [path.stem, asked, trajectories.returns[np.equal(targets, asked)].mean()] for asked in sorted({*targets})
        )
