"""A fifth domain from outside the tree, through the real command line."""

import csv
import json
import os
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sensors"
SMALL = ["model.dim=16", "model.depth=1", "model.num_heads=2", "logger=csv", "trainer.val_check_interval=10"]


@pytest.fixture
def sensors(attend):
    """The command line with the example on Python's path, as an installation would put it there."""
    path = os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    return lambda *words: attend(*words, PYTHONPATH=path, ATTEND_MODULES="sensors")


def recordings(folder: Path) -> Path:
    """Two classes, told apart by the slower of two sensors: 17 series of 13 steps each."""
    draw = np.random.default_rng(0)
    for name, speed in (("slow", 0.1), ("fast", 0.9)):
        (folder / name).mkdir(parents=True)
        for number in range(17):
            steps = np.arange(13) * speed + draw.uniform(0, 6)
            table = np.stack([np.sin(steps), draw.normal(size=13)], 1)
            np.savetxt(folder / name / f"{number}.csv", table, delimiter=",", header="swing,noise", comments="")
    return folder


def test_own_files_from_training_to_prediction(sensors, tmp_path):
    folder = recordings(tmp_path / "series")
    data = ["data=csv", f"data.path={folder}", "data.length=12", "data.batch_size=8"]
    done = sensors("train", "domain=sensors", *data, *SMALL, "run=run", "trainer.max_steps=200")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["val"]["accuracy"] > 0.5
    done = sensors("evaluate", "run=run")
    assert done.returncode == 0, done.stderr
    [score] = json.loads((tmp_path / "run" / "evaluate" / "summary.json").read_text())["scores"]
    assert score["baseline"] == "nearest neighbour"
    done = sensors("predict", "run=run", f"input={folder}")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "predict" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 34
    assert {row["class"] for row in rows} == {"fast", "slow"}
    assert sum(row["class"] in row["file"] for row in rows) > 30


def test_what_is_wrong_is_said_in_a_sentence(sensors, tmp_path):
    done = sensors("train", "domain=sensor")
    assert "did you mean sensors?" in done.stderr
    assert done.returncode == 2
    done = sensors("train", "domain=sensors", "data=digits")
    assert "which takes data=csv|pendulum" in done.stderr
    assert done.returncode == 2
    (tmp_path / "one").mkdir()
    done = sensors("train", "domain=sensors", "data=csv", f"data.path={tmp_path}")
    assert "needs CSV files in at least two sub-folders" in done.stderr
    assert done.returncode == 2


def test_files_of_another_number_of_sensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    room, predict = import_module("sensors.data"), import_module("sensors.predict").predict
    folder = recordings(tmp_path / "series")
    config = room.DataConfig(path=str(folder), length=12)
    data = room.Data(config)
    data.setup()
    parts = data.parts
    data.setup()
    assert data.parts is parts  # read once
    one = tmp_path / "one.csv"
    np.savetxt(one, np.zeros((13, 1)), header="swing", comments="")
    adapter = SimpleNamespace(length=12, mean=torch.zeros(2))
    with pytest.raises(ValueError, match=r"one.csv needs 2 columns, one a sensor, and has 1"):
        predict(adapter, one, tmp_path / "out")
    one.rename(folder / "slow" / "one.csv")
    with pytest.raises(ValueError, match=r"one.csv needs 2 columns"):
        room.Data(config).setup()


def test_the_page_quotes_the_files():
    page = (ROOT / "docs" / "adding_a_domain.md").read_text(encoding="utf-8")
    quotes = dict(re.findall(r"^`(examples/sensors/[^`]*)`[^\n]*:\n\n```\w+\n(.*?)^```", page, flags=re.M | re.S))
    quotes |= dict.fromkeys(re.findall(r"empty `(examples/sensors/[^`]*)`", page), "")
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".yaml", ".toml")]
    assert quotes == {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def test_a_domain_takes_less_than_150_lines():
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 150
