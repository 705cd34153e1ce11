"""Runs that are stopped and killed go on as if nothing had happened; what goes wrong is said in one sentence."""

import fcntl
import os
import resource
import signal
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from experiments import checkpoints, runs
from experiments.compose import compose
from experiments.train import train

# A tiny model of each domain, with all that a resumed run could forget: chance, an average, steps of several batches.
STEPS, EVERY = 6, 2
TINY = [
    *("model.dim=16", "model.depth=1", "model.heads=2", "logger.tensorboard=false", "trainer=cpu"),
    *(f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={EVERY}", "trainer.log_every_n_steps=1"),
]
FORGETFUL = ["model.dropout=0.1", "model.drop_path=0.1", "trainer.ema_decay=0.9", "trainer.accumulate_grad_batches=2"]
DOMAINS = {
    "vision": ["domain=vision", "data.mixup=0.8", "data.augment=rand", "data.batch_size=6"],
    "protein": ["domain=protein", "data.batch_size=2", "data.crop=16", "model.pair_dim=4"],
    "rl": ["domain=rl", "data.episodes=7", "data.batch_size=3"],
    "text": ["domain=text", "data.context=16", "data.batch_size=2", "data.recall=[]", "data.val=50"],
}
PROCESS = get_context("fork").Process


def run(folder: Path, *settings: str) -> None:
    train(compose("config", [*TINY, *settings, f"run={folder}"]), folder, Progress(disable=True))


def ended(folder: Path, *settings: str, spoil=lambda: None) -> int:
    """How a process ends that trains: its exit code, or minus the signal that killed it."""

    def work():
        spoil()
        run(folder, *settings)

    process = PROCESS(target=work)
    process.start()
    process.join()
    return process.exitcode


def same(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def after(count: int, what, then):
    """`what`, but `then` is done before the count-th call of it."""
    left = [count]

    def called(*arguments, **named):
        left[0] -= 1
        if not left[0]:
            then()
        return what(*arguments, **named)

    return called


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, number: int) -> None:
    """In this process, a signal comes while that micro-batch is trained on."""
    from domains.task import AttentionTask

    AttentionTask.training_step = after(step, AttentionTask.training_step, lambda: os.kill(os.getpid(), number))


def step_of(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"]


CASES = [("vision", 0), ("vision", 2), ("protein", 0), ("rl", 2), ("text", 0)]
CASES += [pytest.param(d, w, marks=pytest.mark.slow) for d, w in [("protein", 2), ("rl", 0), ("text", 2)]]


@pytest.mark.parametrize(("domain", "workers"), CASES)
def test_a_stopped_run_ends_with_the_same_weights(domain, workers, tmp_path):
    """By SIGTERM in the middle of a step, by SIGKILL in training, and by SIGKILL while a checkpoint is written."""
    settings = [*DOMAINS[domain], *FORGETFUL, f"data.workers={workers}"]
    run(tmp_path / "whole", *settings)
    parts, last = tmp_path / "parts", tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert ended(parts, *settings, spoil=partial(at_step, 5, signal.SIGTERM)) == 128 + signal.SIGTERM
    assert step_of(last) == 3  # which it let come to its end
    assert ended(parts, *settings, spoil=partial(at_step, 4, signal.SIGKILL)) == -signal.SIGKILL
    assert step_of(last) == 4
    assert ended(parts, *settings, spoil=lambda: setattr(runs, "_to_disk", after(7, runs._to_disk, die))) == -9
    assert ended(parts, *settings) == 0
    assert same(tmp_path / "whole", parts)
