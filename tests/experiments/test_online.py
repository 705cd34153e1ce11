"""A decision transformer that learns from its own episodes, by the commands: train, collect, train, export."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

from domains.rl.collect import collect
from domains.rl.trajectories import read, write
from experiments.compose import compose
from experiments.runs import load_run
from experiments.train import train
from experiments.training.progress import make_progress

SMALL = ["domain=rl", "data=trajectories", "data.context=5", "model.dim=12", "model.depth=1", "model.num_heads=3"]
SHORT = [
    "model.target_quantile=0.9",
    "trainer=cpu",
    "logger=csv",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
]


def attend(command, *overrides):
    import_module(f"experiments.{command}").run(compose(command, list(overrides)))


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """A folder with old.npz, the run first that learnt from it, new.npz that it played, and the run second."""
    folder = tmp_path_factory.mktemp("online")
    write(folder / "old.npz", "CartPole-v1", collect("CartPole-v1", ["random"], 11, 0.0, seed=0)[0])
    with make_progress() as progress:
        config = compose("config", [*SMALL, *SHORT, f"data.path={folder}/old.npz", f"run={folder}/first"])
        train(config, folder / "first", progress)
        settings = [f"policy={folder}/first", "target=1000", "episodes=7", f"output={folder}/new.npz"]
        attend("collect", "env=CartPole-v1", *settings)
        files = f"data.path=[{folder}/old.npz,{folder}/new.npz]"
        config = compose("config", [*SMALL, *SHORT, files, f"init={folder}/first", f"run={folder}/second"])
        train(config, folder / "second", progress)
    return folder


def test_the_second_run_goes_on_from_the_first_with_the_episodes_of_both(rounds):
    (old, first), (new, second) = (load_run(rounds / name) for name in ("first", "second"))
    assert [len(read(rounds / f"{name}.npz")[1].lengths) for name in ("old", "new")] == [11, 7]
    assert list(new.data.path) == [f"{rounds}/old.npz", f"{rounds}/new.npz"]
    assert old.data.path == f"{rounds}/old.npz"
    assert torch.equal(first.get_buffer("mean"), second.get_buffer("mean"))  # a state stays what it was
    weights = dict(first.named_parameters())
    moved = {name: (p - weights[name]).abs().max().item() for name, p in second.named_parameters()}
    within = [value for name, value in moved.items() if name.startswith("transformer.")]
    assert 0 < max(within) < 0.02  # two steps away


def test_a_run_plays_what_it_predicts_if_nobody_names_a_target(rounds, tmp_path):
    settings = [f"policy={rounds}/second", "episodes=4", f"output={tmp_path}/own.npz"]
    attend("collect", "env=CartPole-v1", *settings)
    assert (read(tmp_path / "own.npz")[1].returns > 0).all()
    with np.load(tmp_path / "own.npz") as file:
        assert file["behaviours"].tolist() == [f"{rounds}/second"]


def test_a_run_goes_to_transformers_and_back(rounds, tmp_path, capsys):
    attend("export", f"run={rounds}/second", f"output={tmp_path}/out")
    assert f"wrote {tmp_path}/out/known.json" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "decision_transformer"
    attend("import", "source=transformers", f"file={tmp_path}/out", f"run={tmp_path}/back")
    (_, ours), (_, back) = load_run(rounds / "second"), load_run(tmp_path / "back")
    batch = {
        "returns_to_go": torch.full((2, 3), 30.0),
        "states": torch.randn(2, 3, 4),
        "actions": torch.tensor([[0, 1, 0], [1, 1, 0]]),
        "timesteps": torch.arange(3).expand(2, -1),
    }
    with torch.no_grad():
        torch.testing.assert_close(back(batch), ours(batch), atol=1e-5, rtol=0)
