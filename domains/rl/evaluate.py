"""Asked for a return, how much does the agent achieve? Episodes over a sweep of targets, and the data's own returns."""

import csv
from pathlib import Path

import numpy as np

from domains.adapter import Evaluation, Score, mean_measures
from domains.rl.adapter import Adapter
from domains.rl.data import Data
from domains.rl.figures import draw_returns
from domains.rl.rollout import ReturnConditioned, Trajectories, rollout

# Part of the data's best return that is asked for: number of episodes.
EPISODES = {0.1: 5, 0.2: 20, 0.3: 5, 0.4: 5, 0.5: 20, 0.6: 5, 0.7: 5, 0.8: 5, 0.9: 5, 1.0: 20}
HEADLINE = (0.2, 0.5, 1.0)
FIRST_SEED = 1_000_000  # of the episodes; the same for every run, so that runs can be compared


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Writes episodes.csv and returns.png into `folder`.

    The episodes are new ones, whatever the split; the split decides on which steps of the data the measures of the
    predicted action are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best = adapter.spec["best_return"]
    targets = [part * best for part, count in EPISODES.items() for _ in range(count)]  # N of them
    seeds = [FIRST_SEED + n for count in EPISODES.values() for n in range(count)]
    played = rollout(adapter.spec["environment"], ReturnConditioned(adapter, targets, seeds), seeds)
    write_episodes(folder / "episodes.csv", targets, seeds, played)

    measures: dict = mean_measures(adapter, data.eval_dataloader(split))
    shown = data.played.returns[data.splits["train"]]
    data_mean = float(shown.mean())
    measures |= {"data_mean_return": data_mean, "data_best_return": best, "steps_played": int(played.lengths.sum())}
    measures["achieved"] = {}
    for target in np.unique(targets):
        achieved = played.returns[np.equal(targets, target)]
        summary = {"mean": float(achieved.mean()), "std": float(achieved.std()), "episodes": len(achieved)}
        measures["achieved"][f"{target:g}"] = summary
    draw_returns(np.array(targets), played.returns, shown, folder / "returns.png")
    scores = []
    for target in (f"{part * best:g}" for part in HEADLINE):
        achieved = measures["achieved"][target]["mean"]
        scores.append(Score(f"return at target {target}", achieved, "data mean", data_mean))
    return Evaluation(scores, measures, [folder / "returns.png"])


def write_episodes(path: Path, targets: list[float], seeds: list[int], played: Trajectories) -> None:
    """A line for each episode."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["target", "seed", "return", "steps", "terminated", "truncated"])
        columns = (played.returns, played.lengths, played.terminated, played.truncated)
        rows.writerows(zip(targets, seeds, *(column.tolist() for column in columns), strict=True))
