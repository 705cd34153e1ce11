"""Evaluation: the returns achieved over a sweep of target returns, beside those of the data."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from scipy.stats import rankdata

from domains.adapter import Evaluation, Score, mean_metrics
from domains.rl.adapter import Adapter
from domains.rl.agents import make_policy
from domains.rl.data import Data
from domains.rl.environments import normalized_scores, recreate_env_or_warn
from domains.rl.figures import draw_histogram, draw_returns
from domains.rl.rollout import rollout
from domains.rl.trajectories import Trajectories

# Fraction of the data's best return that is the target: number of episodes.
EPISODES = {0.1: 5, 0.2: 20, 0.3: 5, 0.4: 5, 0.5: 20, 0.6: 5, 0.7: 5, 0.8: 5, 0.9: 5, 1.0: 20}
HEADLINE_FRACTIONS = (0.2, 0.5, 1.0)
UNCONDITIONED_EPISODES = 50  # episodes of behaviour cloning, which has no target
PREDICTED_TARGET_EPISODES = 20  # episodes whose target the model predicts
FIRST_SEED = 1_000_000  # of the episodes; the same for all runs, to compare them


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Play new episodes, and write episodes.csv and returns.png into `folder`; without an environment, or if it cannot
    be recreated as it was recorded, only the picture.

    The split decides on which steps of the data the metrics of the predicted actions are computed. The weights are the
    last ones of the training, not the best of several evaluations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = data.splits["train"]
    train_returns, truncated = (
        data.trajectories.returns[train],
        (data.trajectories.truncated & ~data.trajectories.terminated)[train],
    )
    metrics: dict[str, Any] = mean_metrics(adapter, data.eval_dataloader(split))
    metrics |= {"data_mean_return": float(train_returns.mean()), "data_best_return": adapter.spec["best_return"]}
    metrics["data_returns_that_are_lower_bounds"] = float(truncated.mean())  # truncated by the time limit
    picture, env = folder / "returns.png", recreate_env_or_warn(adapter.spec)
    if env is None:
        draw_histogram(train_returns, np.zeros(0), picture)
        return Evaluation([offline_score(adapter, data, split, metrics)], metrics, [picture])

    fractions = EPISODES if adapter.config.return_conditioned else {1.0: UNCONDITIONED_EPISODES}
    target_of = {
        fraction: target_return(fraction, train_returns, adapter.spec["best_return"]) for fraction in fractions
    }
    targets, seeds, trajectories = play_targets(
        adapter, env, {target_of[fraction]: count for fraction, count in fractions.items()}, FIRST_SEED
    )
    write_episodes(folder / "episodes.csv", targets, seeds, trajectories)
    metrics["steps_played"] = int(trajectories.lengths.sum())
    if not adapter.config.return_conditioned:
        draw_histogram(train_returns, trajectories.returns, picture)
        metrics["achieved"] = summary(env, trajectories, np.ones(len(seeds), bool))
        score = Score("return", metrics["achieved"]["mean"], "data mean", float(train_returns.mean()))
        return Evaluation([score], metrics, [picture])

    draw_returns(np.array(targets), trajectories.returns, train_returns, picture)
    metrics["achieved"] = {f"{a:g}": summary(env, trajectories, np.equal(targets, a)) for a in target_of.values()}
    means = {a: metrics["achieved"][f"{a:g}"]["mean"] for a in target_of.values()}
    best = max(means, key=lambda a: means[a])
    metrics["best_target"] = {"target": best, "mean": means[best]}  # the best of several: slightly optimistic
    metrics["rank_correlation"] = rank_correlation(np.array(list(means)), np.array(list(means.values())))
    scores = [
        Score(
            f"return at target {target_of[fraction]:g}",
            means[target_of[fraction]],
            "data mean",
            float(train_returns.mean()),
        )
        for fraction in HEADLINE_FRACTIONS
    ]
    if adapter.return_head is not None:
        metrics["predicted_target"] = predicted = play_predicted_targets(
            adapter, env, range(FIRST_SEED, FIRST_SEED + PREDICTED_TARGET_EPISODES)
        )
        name = f"return at its own target ({predicted['target']:g} on average)"
        scores.append(Score(name, predicted["mean"], "data mean", float(train_returns.mean())))
    return Evaluation(
        scores,
        metrics,
        [picture],
        comparison_score(env, metrics["achieved"], target_of[1.0], train_returns.mean()),
    )


def comparison_score(
    env: str | EnvSpec, achieved: dict[str, dict[str, float]], target: float, data_mean: float
) -> Score:
    """Return the score at one target, normalized where references are known."""
    reference = normalized_scores(env, float(data_mean)).get("normalised")
    if reference is None:
        return Score(
            f"return at target {target:g}",
            achieved[f"{target:g}"]["mean"],
            "data mean",
            float(data_mean),
        )
    return Score(
        f"normalised return at target {target:g}",
        achieved[f"{target:g}"]["normalised"],
        "data mean",
        reference,
    )


def play_targets(
    adapter: Adapter, env: str | EnvSpec, episodes: Mapping[float, int], first_seed: int
) -> tuple[list[float], list[int], Trajectories]:
    """Play the given number of episodes for each target in parallel; return targets, seeds and trajectories."""
    targets = [target_return for target_return, count in episodes.items() for _ in range(count)]  # N of them
    seeds = [first_seed + n for count in episodes.values() for n in range(count)]
    return targets, seeds, rollout(env, make_policy(adapter, targets, seeds), seeds)


def play_predicted_targets(adapter: Adapter, env: str | EnvSpec, seeds: Sequence[int]) -> dict[str, float]:
    """Return statistics of episodes whose targets the model predicts; "target" is their mean."""
    agent = make_policy(adapter, None, seeds)
    trajectories = rollout(env, agent, seeds)
    return {"target": float(agent.targets.mean()), **summary(env, trajectories, np.ones(len(seeds), bool))}


def target_return(fraction: float, train_returns: np.ndarray, best: float) -> float:
    """Return the target at a fraction of the best return: from 0, or from the return of a bad episode if negative."""
    low = min(0.0, float(np.quantile(train_returns, 0.1)))
    return low + fraction * (best - low) if low else fraction * best


def summary(env: str | EnvSpec, trajectories: Trajectories, which: np.ndarray) -> dict[str, float]:
    """Return statistics of some episodes, with `domains.rl.environments.normalized_scores`."""
    returns = trajectories.returns[which]
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "episodes": len(returns),
        "steps": float(trajectories.lengths[which].mean()),
        "cut_off": float((trajectories.truncated & ~trajectories.terminated)[which].mean()),
        **normalized_scores(env, float(returns.mean())),
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; None if all values of one array are equal."""
    return None if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def offline_score(adapter: Adapter, data: Data, split: str, metrics: dict[str, Any]) -> Score:
    """Return the error of predicted actions, beside the most common or the mean action of the training data."""
    train, held_out = (
        data.trajectories.actions[n][data.trajectories.step_mask[n]] for n in (data.splits["train"], data.splits[split])
    )
    if "accuracy" in metrics:
        hits = float((held_out == np.bincount(train).argmax()).mean())
        return Score("action accuracy", metrics["accuracy"], "commonest action", hits)
    span = np.array(adapter.spec["high"]) - adapter.spec["low"]
    missed = np.abs(held_out - train.mean(0)) / span  # (steps, A)
    return Score("action error, in parts of the range", metrics["error"], "mean action", float(missed.mean()))


def write_episodes(path: Path, targets: list[float], seeds: list[int], trajectories: Trajectories) -> None:
    """Write a line for each episode."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["target", "seed", "return", "steps", "terminated", "truncated"])
        columns = (trajectories.returns, trajectories.lengths, trajectories.terminated, trajectories.truncated)
        rows.writerows(zip(targets, seeds, *(column.tolist() for column in columns), strict=True))
