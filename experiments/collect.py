"""`attend collect`: record trajectories from any Gymnasium environment in a file to train on."""

from importlib.metadata import version
from pathlib import Path
from shlex import quote

import numpy as np
from omegaconf import DictConfig

from domains.rl.adapter import Adapter
from domains.rl.collect import collect, env_for_runs
from domains.rl.minari import minari, to_minari
from domains.rl.trajectories import write
from experiments.config import CollectConfig
from experiments.console import make_console, spinner
from experiments.runs import load_run, to_dataclass


def load_player(folder: str) -> Adapter:
    """Load the model of a run folder. Raises ValueError if it is not of domain=rl."""
    config, adapter = load_run(folder)
    if not isinstance(adapter, Adapter):
        raise ValueError(f"policy={folder} is a run of domain={config.domain.name}, which acts nowhere; possible: rl")
    return adapter


def run(config: DictConfig) -> None:
    c: CollectConfig = to_dataclass(CollectConfig, config)
    if c.minari:
        minari()  # complains before anything is played
    runs = {name: load_player(name) for name in c.policy if Path(name).is_dir()}
    env = env_for_runs(c.env, runs, c.max_episode_steps)
    with spinner(f"playing {c.episodes} episodes …"):
        trajectories, by = collect(env, c.policy, c.episodes, c.noise, c.seed, runs, c.target)
    versions = ", ".join(f"{name} {version(name)}" for name in ("gymnasium", "numpy"))
    write(Path(c.output), c.env, trajectories, **by, versions=versions)
    console, returns = make_console(), trajectories.returns
    low, middle, high = np.quantile(returns, [0.1, 0.5, 0.9])
    cut = (trajectories.truncated & ~trajectories.terminated).mean()
    console.print(
        f"{len(returns)} episodes, {trajectories.lengths.sum()} steps; return {returns.mean():.1f} on average, "
        f"{low:.1f} · {middle:.1f} · {high:.1f} at 10 · 50 · 90 %, {returns.max():.1f} at most; "
        f"{cut:.0%} cut off by the time limit, which might have gone on"
    )
    if returns.min() == returns.max():
        console.print("all episodes have the same return: there is nothing to ask for; try another policy=…")
    if c.minari:
        to_minari(c.minari, env, trajectories, " and ".join(c.policy))
        console.print(f"wrote the Minari data set {c.minari}")
    console.print(f"wrote {c.output}; next: attend train domain=rl data=trajectories {quote(f'data.path={c.output}')}")
