"""A look at a model in training: what it achieves of what it is asked for."""

import csv
from pathlib import Path

import numpy as np

from domains.rl.adapter import Adapter
from domains.rl.data import Data
from domains.rl.environments import remade
from domains.rl.evaluate import FIRST_SEED, HEADLINE, ask, target
from domains.rl.figures import draw_histogram, draw_returns

EPISODES = 5  # for each target, on seeds that no evaluation uses


def picture(adapter: Adapter, data: Data, path: Path) -> None:
    """Draws the returns of a few episodes, and adds their means to returns.csv beside it: the learning curve.

    Raises:
        ValueError: if there is no environment to play.
    """
    env = remade(adapter.spec)
    if env is None:
        raise ValueError("trainer.plot_every_n_steps plays the environment, and there is none (data.environment=none)")
    shown, best = data.played.returns[data.splits["train"]], adapter.spec["best_return"]
    parts = HEADLINE if adapter.config.returns else (1.0,)
    targets, _, played = ask(adapter, env, {target(p, shown, best): EPISODES for p in parts}, FIRST_SEED // 2)
    if adapter.config.returns:
        draw_returns(np.array(targets), played.returns, shown, path)
    else:
        draw_histogram(shown, played.returns, path)
    curve = path.with_name("returns.csv")
    new = not curve.exists()
    with open(curve, "a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(["picture", "target", "return"])
        rows.writerows(
            [path.stem, asked, played.returns[np.equal(targets, asked)].mean()] for asked in sorted({*targets})
        )
