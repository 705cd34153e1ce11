"""The moving average of the weights, and plots during training."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

SMALL = [
    *("model.dim=16", "model.depth=1", "logger.tensorboard=false", "trainer.val_check_interval=20"),
    *("optimizer.schedule=constant", "optimizer.warmup=0"),  # nothing depends on the length of the run
]


def train(forked, *settings):
    done = forked("train", *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    return done


def test_an_average_is_kept_and_resumed_exactly_and_pictures_change_nothing(forked, tmp_path):
    average = "trainer.ema_decay=0.9"
    train(forked, average, "trainer.plot_every_n_steps=20", "run=whole", "trainer.max_steps=40")
    train(forked, average, "run=parts", "trainer.max_steps=20")
    train(forked, "run=parts", "trainer.max_steps=40")
    train(forked, "run=plain", "trainer.max_steps=40")
    whole, parts, plain = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "parts", "plain"))
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=0)
    checkpoint = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)
    now, kept = checkpoint["current_model_state"], checkpoint["state_dict"]
    for name, weight in plain.items():
        torch.testing.assert_close(now[f"adapter.{name}"], weight, rtol=0, atol=0)  # training itself is what it was
        torch.testing.assert_close(kept[f"adapter.{name}"], whole[name], rtol=0, atol=0)
    assert any(not torch.equal(whole[name], plain[name]) for name in plain)
    for step in (20, 40):
        with Image.open(tmp_path / "whole" / "figures" / f"step_{step:06d}.png") as picture:
            assert picture.width > 300
    for settings, message in (
        (["trainer.ema_decay=1.0"], "trainer.ema_decay must lie in [0, 1)"),
        (["trainer.plot_every_n_steps=0"], "trainer.plot_every_n_steps must be at least 1"),
        (["domain=text", "trainer.plot_every_n_steps=5"], "draws nothing while it trains"),
    ):
        refused = forked("train", *SMALL, *settings, "run=refused")
        assert refused.returncode == 2
        assert message in refused.stderr


def test_what_is_no_weight_is_not_averaged(forked, tmp_path):
    """The bytes that each token stands for: validation has to count as evaluation does."""
    (tmp_path / "text.txt").write_text("drei € für Käse, 3 € für Öl. " * 90, encoding="utf-8")
    text = ["domain=text", "data.source=files", "data.path=text.txt", "data.tokenizer=characters", "data.context=31"]
    steps = ["trainer.max_steps=7", "trainer.val_check_interval=7"]
    train(forked, *text, "data.ngram_lookup=[]", "data.val=0.2", "trainer.ema_decay=0.9", "run=run", *steps)
    found = forked("evaluate", "run=run", "split=val", "output=scores")
    assert found.returncode == 0, found.stderr
    scores = json.loads((tmp_path / "scores" / "summary.json").read_text())["metrics"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["val"]
    assert summary["bits_per_byte"] == pytest.approx(scores["bits_per_byte"], rel=1e-5)
