"""The real command line in every domain: learns, resumes exactly, evaluates, predicts, explains."""

import csv
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

# A small model of each domain, and the measure that must fall (-1) or rise (+1) while it learns.
SMALL = {
    "vision": (["model.dim=32", "model.depth=1", "optimizer.lr=1e-2"], "accuracy", +1),
    "protein": (
        ["model.dim=32", "model.depth=1", "data.batch_size=4", "data.crop_size=32"],
        "long_range_precision",
        +1,
    ),
    "rl": (["model.dim=32", "model.depth=1"], "loss", -1),
    "text": (["model.dim=32", "model.depth=1", "data.batch_size=4", "data.context=64"], "loss", -1),
}
STEPS, EVERY = 60, 20


def inputs(domain: str, folder: Path) -> str:
    if domain == "vision":
        Image.new("L", (31, 17), 200).save(folder / "grey.png")
        return str(folder / "grey.png")
    if domain == "protein":
        (folder / "chain.fasta").write_text(">one\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n")
        return str(folder / "chain.fasta")
    return {"rl": "CartPole-v1", "text": "The class"}[domain]


@pytest.mark.parametrize("domain", SMALL)
def test_train_resume_evaluate_predict_explain(domain, attend, forked, tmp_path):
    small, measure, sign = SMALL[domain]
    settings = [f"domain={domain}", *small, f"trainer.val_check_interval={EVERY}", "logger=csv"]
    done = attend("train", *settings, "run=run", f"trainer.max_steps={STEPS}")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "wrote run" in done.stdout
    run = tmp_path / "run"
    for name in (
        "config.yaml",
        "spec.json",
        "weights.safetensors",
        "summary.json",
        "metrics.csv",
        "checkpoints/last.ckpt",
    ):
        assert (run / name).stat().st_size > 0
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == STEPS
    assert checkpoint["record"]["config"]["domain"]["name"] == domain
    curve = [float(row[f"val/{measure}"]) for row in rows(run / "metrics.csv") if row[f"val/{measure}"]]
    assert len(curve) == STEPS // EVERY
    assert sign * (curve[-1] - curve[0]) > 0
    assert (run / "weights.safetensors").stat().st_mode == (run / "config.yaml").stat().st_mode  # who may read them

    more = forked("train", "run=run", f"trainer.max_steps={STEPS + EVERY}")
    assert more.returncode == 0, more.stderr
    assert json.loads((run / "summary.json").read_text())["steps"] == STEPS + EVERY
    steps = [int(row["step"]) for row in rows(run / "metrics.csv") if row["val/loss"]]
    assert steps == [EVERY * n - 1 for n in range(1, 5)]

    judged = forked("evaluate", "run=run")
    assert judged.returncode == 0, judged.stderr
    summary = json.loads((run / "evaluate" / "summary.json").read_text())
    assert summary["scores"]
    assert all(score["baseline"] for score in summary["scores"])
    assert any(path.read_bytes()[:4] == b"\x89PNG" for path in (run / "evaluate").glob("*.png"))

    guessed = forked("predict", "run=run", f"input={inputs(domain, tmp_path)}")
    assert guessed.returncode == 0, guessed.stderr
    assert any(path.is_file() for path in (run / "predict").rglob("*"))

    explained = forked("explain", "run=run", f"input={inputs(domain, tmp_path)}")
    assert explained.returncode == 0, explained.stderr
    assert "wrote run/explain/explain.html" in explained.stdout
    assert '"elements"' in (run / "explain" / "explain.html").read_text(encoding="utf-8")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(forked, tmp_path, same_weights):
    settings = ["domain=vision", "model.dim=32", "model.depth=1", "trainer.val_check_interval=10", "logger=csv"]
    assert forked("train", *settings, "run=whole", "trainer.max_steps=200").returncode == 0
    command = [Path(sys.executable).with_name("attend"), "train", *settings, "run=killed", "trainer.max_steps=200"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert forked("train", "run=killed").returncode == 0
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    steps = [int(row["step"]) for row in rows(tmp_path / "killed" / "metrics.csv")]
    assert steps == sorted(steps)


def test_a_run_goes_on_only_as_itself(forked, tmp_path):
    settings = ["domain=vision", "model.dim=16", "model.depth=1", "run=run", "trainer.max_steps=5", "logger=csv"]
    first = forked("train", *settings)
    assert first.returncode == 0
    assert "vision: 1,212 samples to train on, 135 to validate, 450 to test" in first.stdout
    other = forked("train", "run=run", "seed=3")
    assert other.returncode == 2
    assert "was trained with seed=0; it cannot go on with seed=3" in other.stderr
    config = (tmp_path / "run" / "config.yaml").read_text()
    fewer = forked("train", "run=run", "trainer.max_steps=4")
    assert fewer.returncode == 2
    assert "run has come to its end after 5 steps, more than trainer.max_steps=4" in fewer.stderr
    assert (tmp_path / "run" / "config.yaml").read_text() == config


def test_two_processes_train_what_one_does(attend, forked, tmp_path):
    settings = ["domain=vision", "model.dim=16", "model.depth=1", "trainer.max_steps=8", "logger=csv"]
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    for name, command, trainer in (("one", forked, ["trainer=cpu"]), ("two", attend, ddp)):
        done = command("train", *settings, *trainer, f"run={name}")
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
    first, second = (json.loads((tmp_path / name / "summary.json").read_text())["val"] for name in ("one", "two"))
    assert first == pytest.approx(second, rel=1e-4)


SLOW = {"torch", "lightning", "timm", "gymnasium", "Bio", "sklearn", "matplotlib"}


def loaded(shown: subprocess.CompletedProcess[str]) -> set[str]:
    """The modules that a command imported, if it was told to list them."""
    found = {line.rsplit("|", 1)[-1].strip() for line in shown.stderr.splitlines()}
    assert "experiments.cli" in found
    return found


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_is_quick_and_loads_no_torch(attend, arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = attend(*arguments, PYTHONPROFILEIMPORTTIME="1")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert shown.returncode == 0
    assert "domain" in shown.stdout or "run" in shown.stdout
    found = loaded(shown)
    assert "hydra" in found or arguments[0] == "--help" or arguments[0] == "evaluate"
    assert not found & SLOW
    assert after.ru_utime - before.ru_utime < 4  # seconds of a processor, whatever else keeps it busy


@pytest.mark.parametrize(
    ("line", "expected"),
    [("attend ", {"train", "evaluate", "predict", "demo"}), ("attend train domain=", {"domain=vision", "domain=text"})],
)
def test_completion(attend, line, expected):
    shown = attend("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)), PYTHONPROFILEIMPORTTIME="1")
    assert expected <= set(shown.stdout.split())
    assert not loaded(shown) & SLOW


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
