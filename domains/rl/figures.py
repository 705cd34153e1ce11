"""The figures of the rl domain."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_returns(targets: np.ndarray, achieved: np.ndarray, train_returns: np.ndarray, path: Path) -> None:
    """Plot achieved over target returns, (N,) each, above a histogram of the returns of the training episodes."""
    figure = Figure(figsize=(6.4, 6.4), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    asked = np.unique(targets)
    mean = np.array([achieved[targets == target].mean() for target in asked])
    std = np.array([achieved[targets == target].std() for target in asked])
    lowest, best = min(0.0, train_returns.min()), train_returns.max()
    above.plot([lowest, best], [lowest, best], color="black", linewidth=1, linestyle="--", label="as asked")
    above.scatter(targets, achieved, s=14, color="tab:blue", alpha=0.3, linewidths=0, label="one episode")
    above.errorbar(asked, mean, std, color="tab:blue", marker="o", capsize=3, label="mean ± standard deviation")
    above.axhline(
        train_returns.mean(),
        color="tab:orange",
        linewidth=1,
        label=f"mean of the data ({_short(train_returns.mean())})",
    )
    above.axhline(best, color="tab:green", linewidth=1, label=f"best of the data ({_short(best)})")
    above.set_ylabel("achieved return")
    above.set_title("Return asked for, return achieved")
    above.legend(fontsize=9)
    above.grid(alpha=0.25)
    below.hist(train_returns, bins=25, color="tab:orange")
    below.set_xlabel("target return (above) · return of a training episode (below)")
    below.set_ylabel("episodes")
    figure.savefig(path)


def draw_histogram(train_returns: np.ndarray, achieved: np.ndarray, path: Path) -> None:
    """Plot histograms of the returns of the training episodes and of the agent, if it played any."""
    figure = Figure(figsize=(6.4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.concatenate([train_returns, achieved]), bins=25)
    axes.hist(
        train_returns,
        bins=bins.tolist(),
        density=True,
        color="tab:orange",
        label=f"data (mean {_short(train_returns.mean())})",
    )
    if len(achieved):
        label = f"agent (mean {_short(achieved.mean())})"
        axes.hist(achieved, bins=bins.tolist(), density=True, color="tab:blue", alpha=0.7, label=label)
    axes.set_xlabel("return of an episode")
    axes.set_ylabel("density")
    axes.legend(fontsize=9)
    figure.savefig(path)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"
