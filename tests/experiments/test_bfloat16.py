"""All commands of all domains while the model computes in bfloat16, as a GPU does by default."""

import json

import pytest
import torch
from PIL import Image

SMALL = ["model.dim=16", "model.depth=1", "trainer.max_steps=1", "trainer.val_check_interval=1", "logger=csv"]
CASES = {
    "vision": ["domain=vision", "trainer.plot_every_n_steps=1"],
    "mae": ["domain=vision", "model=mae", "trainer.plot_every_n_steps=1"],
    "protein": ["domain=protein", "data.batch_size=3", "data.crop_size=22", "model.num_heads=2", "model.pair_dim=6"],
    "protein_language": ["domain=protein_language", "data.path=some.fasta", "data.batch_size=3", "model.num_heads=2"],
    "rl": ["domain=rl", "data.context=5", "trainer.plot_every_n_steps=1"],
    "text": ["domain=text", "data.batch_size=3", "data.context=29", "model.qk_norm=true"],
    "joint": ["domain=joint", "model.num_heads=2"],
}


@pytest.fixture
def given(tmp_path):
    """A user's own input for each case."""
    Image.linear_gradient("L").save(tmp_path / "grey.png")
    letters = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQ"
    text = "".join(f">{n}\n{letters[n % 13 :]}{letters[: n % 17]}\n" for n in range(31))
    (tmp_path / "some.fasta").write_text(text)
    return {
        "vision": "grey.png",
        "mae": "grey.png",
        "protein": "some.fasta",
        "protein_language": "some.fasta",
        "rl": "CartPole-v1",
        "text": "The class",
    }


@pytest.mark.parametrize("case", CASES)
def test_every_command(case, forked, given, tmp_path):
    done = forked("train", *CASES[case], *SMALL, "trainer.precision=bf16-mixed", "run=run")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["precision"] == "bf16-mixed"
    commands = [["evaluate"]]
    if case in given:
        commands += [["predict", f"input={given[case]}"]]
    if case in ("vision", "protein", "rl", "text"):
        commands += [["explain", f"input={given[case]}"]]
    if case == "text":
        commands += [["generate", "prompt=The class", "length=7"]]
    with torch.autocast("cpu", torch.bfloat16):  # a fork of this process inherits it
        for command, *words in commands:
            done = forked(command, "run=run", *words)
            assert done.returncode == 0, (command, done.stderr)
