"""All softmax attention is `core.attention.attend`: in training, evaluation, generation, pages and rollouts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LENGTH, DEPTH = 23, 2
TRAIN = [f"model.depth={DEPTH}", "model.dim=24", "model.num_heads=3", "trainer.max_steps=2", "logger=csv", "run=run"]
DATA = {
    "vision": [],
    "protein": ["data.batch_size=2", "model.pair_dim=6"],
    "rl": ["data.episodes=7", "data.batch_size=4"],
    "text": ["data.context=29", "data.ngram_lookup=[]", "data.batch_size=2", "data.source=files", "data.path=text.txt"],
}
INPUT = {"protein": "chain.fasta", "rl": "CartPole-v1", "text": "text.txt", "vision": "drawing.pgm"}


@pytest.mark.parametrize("domain", DATA)
def test_every_attention_is_counted(domain, tmp_path):
    (tmp_path / "chain.fasta").write_text(">one\nMKTAYIAKQRQ\n")
    (tmp_path / "text.txt").write_text("What is kept changes nothing. " * 150)
    (tmp_path / "drawing.pgm").write_bytes(b"P5 8 8 255\n" + bytes(range(0, 256, 4)))
    commands = [
        ["train", f"domain={domain}", *DATA[domain], *TRAIN, "trainer.val_check_interval=2"],
        ["evaluate", "run=run"],
        ["predict", "run=run", f"input={INPUT[domain]}"],
        ["explain", "run=run", f"input={INPUT[domain]}"],
    ]
    if domain == "text":
        commands.append(["generate", "run=run", "prompt=[What,is kept]", f"length={LENGTH}"])
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("counted.py"), json.dumps(commands)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(commands)
    for command, counts in zip(commands, found, strict=True):
        assert counts["attend"] == counts["MultiHeadAttention"] == counts["TransformerBlock"] > 0, command
        assert counts["outside"] == 0, command
        if domain != "protein":  # which goes through the blocks by itself
            assert counts["TransformerBlock"] == DEPTH * counts["Transformer"], command
    if domain == "text":
        assert found[-1]["Transformer"] == LENGTH  # one prefill, then a step for each other token
