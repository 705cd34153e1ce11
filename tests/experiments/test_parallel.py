"""Several processes train the same model as one, in every domain and with every strategy."""

import csv
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from domains.adapter import mean_loss
from domains.data import REPEATED
from domains.rl.collect import collect
from domains.rl.trajectories import write
from experiments.compose import compose
from experiments.runs import make_adapter, make_data
from experiments.train import train
from experiments.training.checkpoints import find_checkpoint, is_intact
from experiments.training.parallel import SplitLinear, merge_split_weights, parallelize
from experiments.training.progress import make_progress
from experiments.untrusted import read_config

pytestmark = pytest.mark.timeout(900)  # twelve trainings by two processes; a minute or two
ROOT = Path(__file__).parents[2]
CORE = "model.dim=12 model.depth=2 model.num_heads=2 data.batch_size=6 logger=csv seed=3"
STEPS = "trainer.max_steps=4 trainer.val_check_interval=2 trainer.log_every_n_steps=1"
CUT = "trainer.gradient_clip_val=0.05 trainer.accumulate_grad_batches=2"
DOMAINS = {
    "vision": "domain=vision optimizer=adamw model.qk_norm=true",
    "protein": "domain=protein optimizer=adamw model.pair_dim=6 data.crop_size=22 data.val_share=0.02"
    " data.test_share=0.02",
    "rl": "domain=rl optimizer=adamw model.dropout=0 data=trajectories data.path={}/random.npz",
    "text": "domain=text optimizer=muon data=files data.path={}/novel.txt data.context=29 model.activation=swiglu "
    "model.mlp_ratio=3",
}
TWO = "trainer.accelerator=cpu trainer.devices=2"
WAYS = {"ddp": "trainer=ddp", "fsdp": "trainer=fsdp", "tp": "trainer=tp_fsdp trainer.activation_checkpointing=true"}


def ranks(folder: Path, runs: dict[str, str], processes: int) -> None:
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=0", "--rdzv-backend=c10d"]
    launch += ["--rdzv-endpoint=localhost:0"]
    known = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [f"{name}={settings}" for name, settings in runs.items()]
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), str(Path(__file__).with_name("ranks.py")), folder, *words],
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs NAME-one, NAME-ddp, NAME-fsdp and NAME-tp of each domain."""
    home = tmp_path_factory.mktemp("ranks")
    write(home / "random.npz", "CartPole-v1", collect("CartPole-v1", ["random"], 31, 0.0, seed=0)[0])
    (home / "novel.txt").write_text((ROOT / "README.md").read_text())
    common = {name: f"{words.format(home)} {CORE} {STEPS} {CUT}" for name, words in DOMAINS.items()}
    ranks(home, {f"{name}-one": f"{words} trainer=cpu" for name, words in common.items()}, 1)
    ranks(home, {f"{n}-{way}": f"{w} {how} {TWO}" for n, w in common.items() for way, how in WAYS.items()}, 2)
    return home


def curve(run: Path) -> list[float]:
    with open(run / "metrics.csv", newline="") as file:
        return [float(value) for row in csv.DictReader(file) for key, value in row.items() if "/" in key and value]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_two_processes_train_what_one_does(folder, domain, way):
    one, two = folder / f"{domain}-one", folder / f"{domain}-{way}"
    assert len(curve(one)) > 6
    assert curve(two) == pytest.approx(curve(one), rel=1e-5)
    theirs = load_file(two / "weights.safetensors")
    for name, weight in load_file(one / "weights.safetensors").items():
        torch.testing.assert_close(theirs.pop(name), weight, rtol=1e-5, atol=1e-4)  # 4 steps, of AdamW at 1e-3
    assert not theirs


def test_checkpoint_of_two_processes_goes_on_with_one(folder, tmp_path):
    run = tmp_path / "text-fsdp"
    shutil.copytree(folder / "text-fsdp", run)
    last = run / "checkpoints" / "last.ckpt"
    assert len(list(last.glob("*.distcp"))) == 2
    next(last.glob("*.distcp")).write_bytes(b"cut short")
    with pytest.warns(UserWarning, match="damaged"):
        assert find_checkpoint(run) == last.with_name("previous.ckpt")  # that of step 2
    (run / "weights.safetensors").unlink()
    words = f"{DOMAINS['text'].format(folder)} {CORE} {STEPS} {CUT} trainer=fsdp {TWO} trainer.devices=1"
    ranks(tmp_path, {"text-fsdp": words}, 1)
    ours, theirs = (load_file(home / "text-fsdp" / "weights.safetensors") for home in (tmp_path, folder))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=1e-4)


def test_checkpoint_of_parts_is_no_other_one(folder):
    run = folder / "vision-tp"
    for way, expected in (("fsdp", "tensor_parallel=2"), ("ddp", "strategy=shard")):
        words = f"{DOMAINS['vision']} {CORE} {STEPS} {CUT} trainer={way} {TWO} run={run}".split()
        with make_progress() as progress, pytest.raises(ValueError, match=expected):
            train(compose("config", words), run, progress)


@pytest.mark.parametrize("way", ["fsdp", "tp"])
def test_export_makes_one_file_of_a_checkpoint_of_parts(folder, tmp_path, way):
    from experiments.export import run as export

    run = tmp_path / "run"
    shutil.copytree(folder / f"vision-{way}", run)
    weights = load_file(run / "weights.safetensors")
    (run / "weights.safetensors").unlink()
    export(compose("export", [f"run={run}"]))
    for name, weight in load_file(run / "weights.safetensors").items():
        torch.testing.assert_close(weight, weights.pop(name), rtol=0, atol=0)
    assert not weights


@pytest.mark.parametrize("where", ["index", "value"])
def test_nothing_in_a_checkpoint_of_parts_is_run(folder, tmp_path, where, payload):
    checkpoint, planted = tmp_path / "last.ckpt", tmp_path / "planted"
    shutil.copytree(folder / "vision-fsdp" / "checkpoints" / "last.ckpt", checkpoint)
    assert is_intact(checkpoint)
    index = pickle.loads((checkpoint / ".metadata").read_bytes())
    if where == "index":
        index.planner_data = payload(planted)
    else:
        key = next(key for key, value in index.state_dict_metadata.items() if type(value).__name__.startswith("Bytes"))
        place = next(place for each, place in index.storage_data.items() if each.fqn == key)
        place.offset = (checkpoint / place.relative_path).stat().st_size
        torch.save(payload(planted), tmp_path / "value")
        place.length = (tmp_path / "value").stat().st_size
        with open(checkpoint / place.relative_path, "ab") as file:
            file.write((tmp_path / "value").read_bytes())
    (checkpoint / ".metadata").write_bytes(pickle.dumps(index))
    assert not is_intact(checkpoint)
    assert not planted.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trainer.tensor_parallel=2", "needs trainer.strategy=shard"),
        ("trainer=tp_fsdp trainer.devices=3", "must divide the 3 devices"),
        ("trainer=fsdp trainer.devices=2 trainer.ema_decay=0.9", "takes no trainer.ema_decay"),
    ],
)
def test_what_cannot_be_shared_is_said(tmp_path, words, expected):
    settings = [*["domain=vision", "trainer.accelerator=cpu"], *words.split(), f"run={tmp_path / 'run'}"]
    with make_progress() as progress, pytest.raises(ValueError, match=expected):
        train(compose("config", settings), tmp_path / "run", progress)


def test_recomputation_changes_no_gradient():
    config = compose(
        "config", ["domain=protein", "model.dim=12", "model.depth=2", "model.num_heads=2", "data.crop_size=22"]
    )
    data = make_data(config)
    adapter, batch = make_adapter(config, data.spec()), data.batch("train", [0, 1])
    gradients = []
    for activation_checkpointing in (False, True):
        if activation_checkpointing:
            parallelize(adapter, None, activation_checkpointing=True)
        adapter.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        gradients.append([p.grad for p in adapter.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "world"), [(7, 3), (23, 2), (5, 2), (3, 5)])
def test_evaluation_counts_every_sample_once_on_any_number_of_processes(size, world):
    data: Any = make_data(compose("config", ["domain=vision", "data.batch_size=3"]))
    data.size = lambda split: size
    data.batch = lambda split, indices, rngs=None: {"labels": torch.tensor(list(indices))}
    seen, lengths = [], set()
    for rank in range(world):
        batches = list(data.eval_dataloader("val", rank, world))
        lengths.add(len(batches))
        seen += [n for batch in batches if REPEATED not in batch for n in batch["labels"].tolist()]
    assert sorted(seen) == list(range(size))
    assert len(lengths) == 1


def test_parts_of_a_linear_are_its_outputs_side_by_side():
    whole_one = nn.Linear(7, 5 + 3)
    parts = SplitLinear(whole_one, (5, 3))
    x = torch.randn(2, 11, 7)
    torch.testing.assert_close(parts(x), whole_one(x))
    named = {f"block.mixer.qkv.{name}": value for name, value in parts.state_dict().items()}
    assert torch.equal(merge_split_weights(named)["block.mixer.qkv.weight"], whole_one.weight)
    assert torch.equal(merge_split_weights(named)["block.mixer.qkv.bias"], whole_one.bias)


SWEEPS = {
    "basic": "optimizer.lr=1e-3,1e-2",
    "optuna": "hydra/sweeper=optuna hydra/sweeper/sampler=grid hydra.sweeper.n_trials=2 hydra.sweeper.n_jobs=1 "
    "optimizer.lr=choice(1e-3,1e-2)",
}


@pytest.mark.parametrize("sweeper", SWEEPS)
def test_every_rank_of_a_sweeps_job_has_its_learning_rate(attend, tmp_path, sweeper):
    if sweeper == "optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["domain=vision", "model.dim=12", "model.depth=1", "model.num_heads=2", "logger=csv", "trainer.max_steps=2"]
    done = attend("train", "-m", *words, "trainer=ddp", *TWO.split(), *SWEEPS[sweeper].split())
    assert done.returncode == 0, done.stderr[-2000:]
    jobs = sorted(path.parent for path in tmp_path.glob("outputs/sweeps/vision/*/*/weights.safetensors"))
    assert [job.name for job in jobs] == ["0", "1"]
    rates = {job: read_config(job)["optimizer"]["lr"] for job in jobs}
    alone = {f"alone-{job.name}": f"{' '.join(words)} optimizer.lr={rate} trainer=cpu" for job, rate in rates.items()}
    ranks(tmp_path, alone, 1)
    ends = []
    for job in jobs:
        one = load_file(tmp_path / f"alone-{job.name}" / "weights.safetensors")
        ends.append(load_file(job / "weights.safetensors"))
        for name, weight in ends[-1].items():
            torch.testing.assert_close(weight, one[name], rtol=1e-5, atol=2e-4)
    assert not torch.equal(ends[0]["classifier.weight"], ends[1]["classifier.weight"])
