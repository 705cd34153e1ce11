"""The number of training steps that gives each value of a factor the same budget of FLOPs or seconds."""

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
from experiments.runs import make_adapter, make_data, to_dataclass, write_json
from experiments.training.costs import flop_counter
from experiments.training.optimizers import make_optimizer

TIMED_STEPS = 9  # of each value, in turns, after two warm-up steps


def equalize_steps(jobs: list[dict[str, Any]], first: str, equal: Equal, path: Path, console: Console) -> None:
    """Multiply every job's steps by the cost of the first value's step over the cost of its own.

    The costs are stored at `path` and not measured again, so that a comparison that is continued stays the same.

    Args:
        jobs: each with domain, value, overrides and steps; those of a domain's first value stay as they are.
    """
    cached = json.loads(path.read_text()) if path.is_file() else {}
    for domain in dict.fromkeys(job["domain"] for job in jobs):
        domain_jobs = [job for job in jobs if job["domain"] == domain]
        overrides_by_value = {job["value"]: job["overrides"] for job in domain_jobs if job["seed"] == 0}
        name = json.dumps([domain, equal.value, overrides_by_value])
        if name not in cached:
            console.print(f"  {domain}: measuring {equal.value} a step of {', '.join(overrides_by_value)}")
            cached[name] = measure_step_costs(overrides_by_value, equal)
            write_json(path, cached)
        costs = cached[name]
        base = costs[first if first in costs else next(iter(costs))]
        for job in domain_jobs:
            job["steps"] = max(1, round(job["steps"] * base / costs[job["value"]]))


def measure_step_costs(overrides_by_value: dict[str, list[str]], equal: Equal) -> dict[str, float]:
    """Return the FLOPs or seconds of a training step for each set of overrides; seconds are medians, timed in turns."""
    steps = {value: make_trial_step(compose("config", overrides)) for value, overrides in overrides_by_value.items()}
    if equal is Equal.flops:
        flops = {}
        for value, step in steps.items():
            with flop_counter() as counting:
                step()
            flops[value] = float(counting.get_total_flops())
        return flops
    durations: dict[str, list[float]] = {value: [] for value in steps}
    for _ in range(TIMED_STEPS + 2):
        for value, step in steps.items():
            started = time.perf_counter()
            step()
            durations[value].append(time.perf_counter() - started)
    return {value: statistics.median(seconds[2:]) for value, seconds in durations.items()}


def make_trial_step(config: DictConfig) -> Callable[[], None]:
    """Return a function that runs one training step of a throwaway model on the first samples."""
    data = make_data(config)
    adapter = make_adapter(config, data.spec()).to(best_device()).train()
    optimizer = make_optimizer(adapter, to_dataclass(OptimizerConfig, config.optimizer))
    size = config.data.batch_size
    batch = data.batch("train", range(size), (np.random.default_rng((config.seed, n)) for n in range(size)))
    batch = to_device(batch, adapter.device)

    def step() -> None:
        optimizer.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()

    return step
