"""Asked for a return, how much does the agent achieve? Episodes over a sweep of targets, and the data's own returns."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from scipy.stats import rankdata

from domains.adapter import Evaluation, Score, mean_metrics
from domains.rl.adapter import Adapter
from domains.rl.agents import make_agent
from domains.rl.data import Data
from domains.rl.environments import normalised, playable
from domains.rl.figures import draw_histogram, draw_returns
from domains.rl.rollout import rollout
from domains.rl.trajectories import Trajectories

# Part of the data's best return that is asked for: number of episodes.
EPISODES = {0.1: 5, 0.2: 20, 0.3: 5, 0.4: 5, 0.5: 20, 0.6: 5, 0.7: 5, 0.8: 5, 0.9: 5, 1.0: 20}
HEADLINE = (0.2, 0.5, 1.0)
UNASKED = 50  # episodes of a model that is asked for nothing
OWN = 20  # of one that is asked for what it predicts
FIRST_SEED = 1_000_000  # of the episodes; the same for every run, so that runs can be compared


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Writes episodes.csv and returns.png into `folder`; without an environment, or one that cannot be made again as it
    was recorded, only the picture.

    The episodes are new ones, whatever the split; the split decides on which steps of the data the metrics of the
    predicted action are taken. The weights are the last ones of the training, not the best of several evaluations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = data.splits["train"]
    shown, cut = data.played.returns[train], (data.played.truncated & ~data.played.terminated)[train]
    metrics: dict[str, Any] = mean_metrics(adapter, data.eval_dataloader(split))
    metrics |= {"data_mean_return": float(shown.mean()), "data_best_return": adapter.spec["best_return"]}
    metrics["data_returns_that_are_lower_bounds"] = float(cut.mean())  # cut off by the time limit
    picture, env = folder / "returns.png", playable(adapter.spec)
    if env is None:
        draw_histogram(shown, np.zeros(0), picture)
        return Evaluation([offline_score(adapter, data, split, metrics)], metrics, [picture])

    parts = EPISODES if adapter.config.returns else {1.0: UNASKED}
    asked = {part: target(part, shown, adapter.spec["best_return"]) for part in parts}
    targets, seeds, played = ask(adapter, env, {asked[part]: count for part, count in parts.items()}, FIRST_SEED)
    write_episodes(folder / "episodes.csv", targets, seeds, played)
    metrics["steps_played"] = int(played.lengths.sum())
    if not adapter.config.returns:
        draw_histogram(shown, played.returns, picture)
        metrics["achieved"] = summary(env, played, np.ones(len(seeds), bool))
        score = Score("return", metrics["achieved"]["mean"], "data mean", float(shown.mean()))
        return Evaluation([score], metrics, [picture])

    draw_returns(np.array(targets), played.returns, shown, picture)
    metrics["achieved"] = {f"{a:g}": summary(env, played, np.equal(targets, a)) for a in asked.values()}
    means = {a: metrics["achieved"][f"{a:g}"]["mean"] for a in asked.values()}
    best = max(means, key=lambda a: means[a])
    metrics["best_target"] = {"target": best, "mean": means[best]}  # the best of several, and so a little too good
    metrics["rank_correlation"] = rank_correlation(np.array(list(means)), np.array(list(means.values())))
    scores = [
        Score(f"return at target {asked[part]:g}", means[asked[part]], "data mean", float(shown.mean()))
        for part in HEADLINE
    ]
    if adapter.hope is not None:
        metrics["own_target"] = own = ask_itself(adapter, env, range(FIRST_SEED, FIRST_SEED + OWN))
        name = f"return at its own target ({own['target']:g} on average)"
        scores.append(Score(name, own["mean"], "data mean", float(shown.mean())))
    return Evaluation(scores, metrics, [picture], compared(env, metrics["achieved"], asked[1.0], shown.mean()))


def compared(env: str | EnvSpec, achieved: dict[str, dict[str, float]], asked: float, usual: float) -> Score:
    """What is achieved at one target, normalised where references are known."""
    rival = normalised(env, float(usual)).get("normalised")
    if rival is None:
        return Score(f"return at target {asked:g}", achieved[f"{asked:g}"]["mean"], "data mean", float(usual))
    return Score(f"normalised return at target {asked:g}", achieved[f"{asked:g}"]["normalised"], "data mean", rival)


def ask(
    adapter: Adapter, env: str | EnvSpec, episodes: Mapping[float, int], first_seed: int
) -> tuple[list[float], list[int], Trajectories]:
    """Plays so many episodes for each target, all side by side: their targets, their seeds, and what was played."""
    targets = [target for target, count in episodes.items() for _ in range(count)]  # N of them
    seeds = [first_seed + n for count in episodes.values() for n in range(count)]
    return targets, seeds, rollout(env, make_agent(adapter, targets, seeds), seeds)


def ask_itself(adapter: Adapter, env: str | EnvSpec, seeds: Sequence[int]) -> dict[str, float]:
    """Figures of episodes in which the model is asked for what it predicts; "target" is the mean of that."""
    agent = make_agent(adapter, None, seeds)
    played = rollout(env, agent, seeds)
    return {"target": float(agent.targets.mean()), **summary(env, played, np.ones(len(seeds), bool))}


def target(part: float, shown: np.ndarray, best: float) -> float:
    """The return that lies so far on the way up to the best: from 0, or from what a bad episode costs."""
    low = min(0.0, float(np.quantile(shown, 0.1)))
    return low + part * (best - low) if low else part * best


def summary(env: str | EnvSpec, played: Trajectories, which: np.ndarray) -> dict[str, float]:
    """Figures of some of the episodes; the scores are those of `domains.rl.environments.normalised`."""
    returns = played.returns[which]
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "episodes": len(returns),
        "steps": float(played.lengths[which].mean()),
        "cut_off": float((played.truncated & ~played.terminated)[which].mean()),
        **normalised(env, float(returns.mean())),
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's: 1 if what is achieved rises with what is asked, without exception. None if all of one are equal."""
    return None if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def offline_score(adapter: Adapter, data: Data, split: str, metrics: dict[str, Any]) -> Score:
    """How well actions are predicted, beside always the commonest action of the training data, or their mean."""
    train, held_out = (data.played.actions[n][data.played.real[n]] for n in (data.splits["train"], data.splits[split]))
    if "accuracy" in metrics:
        hits = float((held_out == np.bincount(train).argmax()).mean())
        return Score("action accuracy", metrics["accuracy"], "commonest action", hits)
    span = np.array(adapter.spec["high"]) - adapter.spec["low"]
    missed = np.abs(held_out - train.mean(0)) / span  # (steps, A)
    return Score("action error, in parts of the range", metrics["error"], "mean action", float(missed.mean()))


def write_episodes(path: Path, targets: list[float], seeds: list[int], played: Trajectories) -> None:
    """A line for each episode."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["target", "seed", "return", "steps", "terminated", "truncated"])
        columns = (played.returns, played.lengths, played.terminated, played.truncated)
        rows.writerows(zip(targets, seeds, *(column.tolist() for column in columns), strict=True))
