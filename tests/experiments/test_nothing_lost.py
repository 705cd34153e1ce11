"""Stopped and killed runs resume to the same weights; errors of a training are one sentence."""

import json
import os
import resource
import signal
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

import experiments.train as training
from domains.sampling import shuffled
from experiments import guards, runs
from experiments.compose import compose
from experiments.training.checkpoints import find_checkpoint
from experiments.training.nonfinite import find_nonfinite_source

# A tiny model of each domain, with all that a resumed run could forget: chance, an average, steps of several batches.
STEPS, EVERY = 6, 2
TINY = [
    *("model.dim=16", "model.depth=1", "model.num_heads=2", "logger.tensorboard=false", "trainer=cpu"),
    *(f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={EVERY}", "trainer.log_every_n_steps=1"),
]
FORGETFUL = ["model.dropout=0.1", "model.drop_path=0.1", "trainer.ema_decay=0.9", "trainer.accumulate_grad_batches=2"]
DOMAINS = {
    "vision": ["domain=vision", "data.mixup=0.8", "data.augment=rand", "data.batch_size=6"],
    "protein": ["domain=protein", "data.batch_size=2", "data.crop_size=16", "model.pair_dim=4"],
    "rl": ["domain=rl", "data.episodes=7", "data.batch_size=3"],
    "text": ["domain=text", "data.context=16", "data.batch_size=2", "data.ngram_lookup=[]", "data.val=50"],
}
PROCESS = get_context("fork").Process


def run(folder: Path, *settings: str) -> None:
    training.train(compose("config", [*TINY, *settings, f"run={folder}"]), folder, Progress(disable=True))


def ended(folder: Path, *settings: str, spoil=lambda: None) -> int | None:
    """Train in a process; return its exit code, or minus the signal that killed it."""

    def work():
        spoil()
        try:
            run(folder, *settings)
        except ValueError as error:
            (folder / "said").write_text(str(error))
            raise SystemExit(2) from error

    process = PROCESS(target=work)
    process.start()
    process.join()
    return process.exitcode


def after(count: int, what, then):
    """`what`, but `then` is done before the count-th call of it."""
    left = [count]

    def called(*arguments, **named):
        left[0] -= 1
        if not left[0]:
            then()
        return what(*arguments, **named)

    return called


def compose_data(settings):
    return runs.make_data(compose("config", [*TINY, *settings]))


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, number: int) -> None:
    """Send this process a signal while it trains on that micro-batch."""
    from experiments.training.task import AttentionTask

    AttentionTask.training_step = after(step, AttentionTask.training_step, lambda: os.kill(os.getpid(), number))


def step_of(checkpoint: Path | None) -> int:
    assert checkpoint is not None
    return torch.load(checkpoint, weights_only=True)["global_step"]


CASES = [("vision", 0), ("vision", 2), ("protein", 0), ("rl", 2), ("text", 0)]
CASES += [pytest.param(d, w, marks=pytest.mark.slow) for d, w in [("protein", 2), ("rl", 0), ("text", 2)]]


@pytest.mark.parametrize(("domain", "workers"), CASES)
def test_a_stopped_run_ends_with_the_same_weights(domain, workers, tmp_path, same_weights):
    """By SIGTERM in the middle of a step; by SIGKILL in training, while writing a checkpoint, and at the very end."""
    settings = [*DOMAINS[domain], *FORGETFUL, f"data.workers={workers}"]
    run(tmp_path / "whole", *settings)
    parts, last = tmp_path / "parts", tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert ended(parts, *settings, spoil=partial(at_step, 5, signal.SIGTERM)) == 128 + signal.SIGTERM
    assert step_of(last) == 3  # which it let come to its end
    assert ended(parts, *settings, spoil=partial(at_step, 4, signal.SIGKILL)) == -signal.SIGKILL
    assert step_of(last) == 4
    assert ended(parts, *settings, spoil=lambda: setattr(guards, "_fsync", after(7, guards._fsync, die))) == -9
    assert ended(parts, *settings, spoil=lambda: setattr(training, "write_weights", die)) == -9
    assert step_of(last) == STEPS
    assert ended(parts, *settings) == 0
    assert same_weights(tmp_path / "whole", parts)
    whole, summary = (json.loads((folder / "summary.json").read_text()) for folder in (tmp_path / "whole", parts))
    assert summary["val"] == pytest.approx(whole["val"])


QUICK = ["domain=vision", "logger.csv=false"]


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(tmp_path, payload):
    """Truncated, one bit changed, another file, one that would run code: each is ignored with a warning."""
    run(tmp_path / "whole", *QUICK)
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    good = last.read_bytes()
    middle = len(good) // 2
    torch.save({"global_step": 6, "x": payload(tmp_path / "planted")}, tmp_path / "evil")
    evil = (tmp_path / "evil").read_bytes()
    damages = [good[:-100], good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :], b"", evil]
    for damaged in damages:
        last.write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"last\.ckpt is damaged") as told:
            chosen = find_checkpoint(tmp_path / "whole")
        assert len(told) == 1
        assert chosen == last.with_name("previous.ckpt")
        assert step_of(chosen) == STEPS - EVERY
    with pytest.warns(UserWarning, match="damaged"):
        run(tmp_path / "whole", *QUICK)
    assert step_of(last) == STEPS
    for path in last.parent.iterdir():
        path.write_bytes(damages[0])
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        run(tmp_path / "whole", *QUICK)
    assert not (tmp_path / "planted").exists()


def samples(step: int, each: int, size: int) -> str:
    """As a message lists the samples of a step."""
    return ", ".join(str(n) for n in shuffled(size, 0, 0)[step * each : (step + 1) * each])


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    """The message names the step, the first module and the samples; what is kept is from before."""
    settings = [*QUICK, "data.batch_size=5", "trainer.val_check_interval=1"]
    run(tmp_path / "run", *settings, "trainer.max_steps=1")
    size = compose_data(settings).size("train")
    assert ended(tmp_path / "run", *settings, spoil=explode) == 2
    told = (tmp_path / "run" / "said").read_text()
    assert told.startswith("the loss of step 1 is nan: the first output that is not finite is that of transformer.")
    assert f"; samples {samples(1, 5, size)} of the training split" in told
    assert step_of(tmp_path / "run" / "checkpoints" / "last.ckpt") == 1


def test_a_loss_that_is_no_number_is_found_later_where_no_step_waits_for_it(tmp_path):
    """As on a GPU: before a checkpoint is written, by when the weights have gone, too. The batch is made again."""
    settings = [*QUICK, "data.batch_size=5", "trainer.val_check_interval=3", "trainer.log_every_n_steps=7"]
    size = compose_data(settings).size("train")

    def spoil():
        from domains.vision.data import Data
        from experiments.training.task import AttentionTask

        whole, bad = Data.batch, samples(1, 5, size)

        def batch(self, split, indices, *drawing):
            found = whole(self, split, indices, *drawing)
            if ", ".join(map(str, indices)) == bad:
                found["images"][0, 0] = torch.nan
            return found

        pytest.MonkeyPatch().setattr(Data, "batch", batch)
        pytest.MonkeyPatch().setattr(AttentionTask, "reads_loss", lambda self, device: False)

    assert ended(tmp_path / "run", *settings, spoil=spoil) == 2
    told = (tmp_path / "run" / "said").read_text()
    assert told.startswith(
        "the loss first was not finite at step 1, and the weights followed: the batch's images are not"
    )
    assert f"; samples {samples(1, 5, size)} of the training split" in told
    assert not [*(tmp_path / "run" / "checkpoints").glob("*")]


@pytest.mark.parametrize("bad", [1, 2])
def test_a_step_without_a_loss_may_be_left_out_but_not_two_in_a_row(tmp_path, capfd, bad):
    def spoil():
        from domains.vision.data import Data

        whole, drawn = Data.batch, []

        def batch(self, split, *drawing):
            found = whole(self, split, *drawing)
            if split == "train":
                drawn.append(1)
                if 2 <= len(drawn) < 2 + bad:
                    found["images"][0, 0] = torch.nan
            return found

        pytest.MonkeyPatch().setattr(Data, "batch", batch)

    settings = [*QUICK, "trainer.skip_nan=1", "trainer.max_steps=3", "trainer.val_check_interval=1"]
    assert ended(tmp_path / "run", *settings, spoil=spoil) == (0 if bad == 1 else 2)
    assert "left out, 1 of 1 in a row: the loss of step 1 is nan: the batch's images are" in capfd.readouterr().out
    kept = tmp_path / "run" / "checkpoints"
    if bad == 1:
        assert step_of(kept / "last.ckpt") == 3
        assert not equal_weights(kept / "last.ckpt", kept / "previous.ckpt")
    else:
        assert (tmp_path / "run" / "said").read_text().startswith("the loss of step 2 is nan")
        assert step_of(kept / "last.ckpt") == 2
        assert equal_weights(kept / "last.ckpt", kept / "previous.ckpt")


def equal_weights(one: Path, other: Path) -> bool:
    ours, theirs = (torch.load(path, weights_only=True)["state_dict"] for path in (one, other))
    return all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("adapter."))


def explode() -> None:
    """Make a block's norm return infinity in this process."""
    torch.nn.functional.layer_norm = lambda x, *_, **__: x / 0


@pytest.mark.parametrize(
    ("where", "told"), [("weights", "weights transformer.norm.weight are"), ("batch", "batch's images are")]
)
def test_weights_and_batches_that_are_no_numbers_are_named(where, told):
    settings = [*QUICK, "data.batch_size=5"]
    data = compose_data(settings)
    adapter = runs.make_adapter(compose("config", [*TINY, *settings]), data.spec())
    batch = data.batch("train", [0, 1, 2])
    assert find_nonfinite_source(adapter, batch) == "all outputs are finite"
    spoilt = batch["images"] if where == "batch" else adapter.state_dict()["transformer.norm.weight"]
    spoilt.view(-1)[3] = torch.nan
    assert told in find_nonfinite_source(adapter, batch)


def test_weights_that_are_no_numbers_are_never_kept(tmp_path):
    def poison():
        from torch.optim import AdamW

        def step(self, closure):
            closure()
            self.param_groups[0]["params"][0].data.fill_(torch.inf)

        pytest.MonkeyPatch().setattr(AdamW, "step", step)

    assert ended(tmp_path / "run", *QUICK, "trainer.val_check_interval=1", spoil=poison) == 2
    assert "after step 1" in (tmp_path / "run" / "said").read_text()
    assert not [*(tmp_path / "run" / "checkpoints").glob("*")]


def test_a_data_worker_that_dies_names_what_it_read(tmp_path):
    def spoil():
        from domains.vision.data import Data

        Data.batch = after(2, Data.batch, die)  # each worker counts for itself

    settings = [*QUICK, "data.batch_size=5", "data.workers=2", "trainer.max_steps=6"]
    size = compose_data(settings).size("train")
    assert ended(tmp_path / "run", *settings, spoil=spoil) == 2
    told = (tmp_path / "run" / "said").read_text()
    assert told.startswith("a data worker died while it read the samples")
    assert any(samples(step, 5, size) in told for step in (2, 3))  # one of the two, or both
    assert "killed by signal" in told or "exited unexpectedly" in told


def test_an_unreadable_sample_in_a_worker_is_one_sentence(tmp_path):
    def spoil():
        from domains.vision.data import Data

        def unreadable(*_):
            raise ValueError("cat.png cannot be read as an image")

        pytest.MonkeyPatch().setattr(Data, "batch", unreadable)

    assert ended(tmp_path / "run", *QUICK, "data.workers=1", spoil=spoil) == 2
    assert (tmp_path / "run" / "said").read_text() == "cat.png cannot be read as an image"


def test_a_full_device_says_what_to_lower(tmp_path):
    def spoil():
        from domains.vision.adapter import Adapter

        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

        pytest.MonkeyPatch().setattr(Adapter, "loss", full)

    assert ended(tmp_path / "run", *QUICK, spoil=spoil) == 2
    assert "lower data.batch_size, and raise trainer.accumulate_grad_batches" in (tmp_path / "run" / "said").read_text()


def test_a_full_disk_leaves_a_checkpoint_that_loads(tmp_path):
    run(tmp_path / "run", *QUICK, "trainer.max_steps=2")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (last.stat().st_size - 1000,) * 2)  # as if no more went onto the disk

    assert ended(tmp_path / "run", *QUICK, "trainer.max_steps=6", spoil=full) == 2
    told = (tmp_path / "run" / "said").read_text()
    assert told.startswith(f"the disk of {tmp_path / 'run'} is full")
    assert told.endswith(f"make room, then attend train run={tmp_path / 'run'} goes on from the last checkpoint")
    assert step_of(last) == 2
    assert not [*last.parent.glob("*.unfinished")]


def test_two_runs_cannot_write_one_folder(tmp_path):
    ready, go = get_context("fork").Event(), get_context("fork").Event()

    def hold():
        with guards.run_lock(tmp_path / "run"):
            ready.set()
            go.wait(60)

    process = PROCESS(target=hold)
    process.start()
    ready.wait(60)
    with pytest.raises(ValueError, match="another process is training in"):
        run(tmp_path / "run", *QUICK)
    assert not (tmp_path / "run" / "config.yaml").exists()
    go.set()
    process.join()
    run(tmp_path / "run", *QUICK, "trainer.max_steps=2")
