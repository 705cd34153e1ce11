"""A fifth domain from outside the tree, through the real command line."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sensors"
SMALL = ["model.dim=16", "model.depth=1", "model.heads=2", "logger=csv", "trainer.val_check_interval=10"]


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
    done = sensors("train", "domain=sensors", "data=digits")
    assert "which takes data=csv|pendulum" in done.stderr
    (tmp_path / "one").mkdir()
    done = sensors("train", "domain=sensors", "data=csv", f"data.path={tmp_path}")
    assert "needs CSV files in at least two sub-folders" in done.stderr
    assert done.returncode == 2


def test_the_page_quotes_the_files():
    page = (ROOT / "docs" / "adding_a_domain.md").read_text(encoding="utf-8")
    quotes = dict(re.findall(r"^`(examples/sensors/[^`]*)`:\n\n```\w+\n(.*?)^```", page, flags=re.M | re.S))
    code = [path for path in EXAMPLE.rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 1]
    assert quotes.keys() >= {str(path.relative_to(ROOT)) for path in code}
    for path, quote in quotes.items():
        assert quote == (ROOT / path).read_text(encoding="utf-8"), path


def test_a_domain_takes_less_than_150_lines():
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 150
