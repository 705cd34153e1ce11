"""Equal means: how many training steps each value of a factor gets, so that all cost the same."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from torch.nn.utils import clip_grad_norm_

from domains.adapter import mean_loss, to_device
from experiments.compose import compose
from experiments.config import Equal, OptimizerConfig
from experiments.environment import best_device
from experiments.runs import make_adapter, make_data, typed, write_json
from experiments.training.costs import counter
from experiments.training.optimizers import make_optimizer

ROUNDS = 9  # timed steps of each value, in turns; two more before that are not counted


def balance(jobs: list[dict[str, Any]], first: str, equal: Equal, path: Path, console: Console) -> None:
    """Sets every job's steps to those of the first value, times the ratio of their costs a step.

    What was measured is kept at `path`, and not measured again: a comparison that goes on is the same comparison.

    Args:
        jobs: each with domain, value, overrides and steps; those of a domain's first value stay as they are.
    """
    known = json.loads(path.read_text()) if path.is_file() else {}
    for domain in dict.fromkeys(job["domain"] for job in jobs):
        mine = [job for job in jobs if job["domain"] == domain]
        words = {job["value"]: job["overrides"] for job in mine if job["seed"] == 0}
        name = json.dumps([domain, equal.value, words])
        if name not in known:
            console.print(f"  {domain}: measuring {equal.value} a step of {', '.join(words)}")
            known[name] = measure(words, equal)
            write_json(path, known)
        costs = known[name]
        base = costs[first if first in costs else next(iter(costs))]
        for job in mine:
            job["steps"] = max(1, round(job["steps"] * base / costs[job["value"]]))


def measure(words: dict[str, list[str]], equal: Equal) -> dict[str, float]:
    """FLOPs or seconds of a training step, for each set of overrides; seconds as a median, measured in turns."""
    steps = {value: trial(compose("config", overrides)) for value, overrides in words.items()}
    if equal is Equal.flops:
        found = {}
        for value, step in steps.items():
            with counter() as counting:
                step()
            found[value] = float(counting.get_total_flops())
        return found
    taken: dict[str, list[float]] = {value: [] for value in steps}
    for _ in range(ROUNDS + 2):
        for value, step in steps.items():
            began = time.perf_counter()
            step()
            taken[value].append(time.perf_counter() - began)
    return {value: statistics.median(seconds[2:]) for value, seconds in taken.items()}


def trial(config: DictConfig) -> Callable[[], None]:
    """A training step of a model that is thrown away, on the first samples."""
    data = make_data(config)
    adapter = make_adapter(config, data.spec()).to(best_device()).train()
    optimizer = make_optimizer(adapter, typed(OptimizerConfig, config.optimizer))
    size = config.data.batch_size
    batch = data.batch("train", range(size), (np.random.default_rng((config.seed, n)) for n in range(size)))
    batch = to_device(batch, adapter.device)

    def step() -> None:
        optimizer.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()

    return step
