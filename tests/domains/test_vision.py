import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from core.config import PositionConfig, PositionKind
from domains.vision.adapter import Adapter
from domains.vision.config import Augment, DataConfig, ModelConfig, Pool
from domains.vision.augment import distorted
from domains.vision.data import Data
from domains.vision.evaluate import evaluate, rollout
from domains.vision.predict import predict


def pixels():
    return load_digits(return_X_y=True)[0].reshape(-1, 8, 8)


@pytest.fixture(scope="module")
def data():
    digits = Data(DataConfig())
    digits.setup()
    return digits


def make(data, kind=PositionKind.learned, **settings):
    torch.manual_seed(0)
    return Adapter(ModelConfig(**{"dim": 24, "depth": 1, "heads": 2, **settings}), PositionConfig(kind), data.spec())


def test_the_splits_are_stratified_and_apart(data):
    assert [data.size(split) for split in ("train", "val", "test")] == [1212, 135, 450]
    parts = [set(data.images.splits[split]) for split in data.images.splits]
    assert len(set.union(*parts)) == 1797
    counts = np.bincount(data.images.labels[data.images.splits["test"]])
    assert counts.min() >= 43
    assert counts.max() <= 46
    other = Data(DataConfig(), seed=5)
    other.setup()
    assert np.array_equal(other.images.splits["test"], data.images.splits["test"])


def test_a_batch_holds_the_images(data):
    batch = data.batch("test", [3, 11])
    assert batch["images"].shape == (2, 1, 8, 8)
    index = data.images.splits["test"][11]
    assert torch.equal(batch["images"][1, 0] * 16, torch.tensor(pixels()[index], dtype=torch.float32))
    assert batch["labels"].tolist() == data.images.labels[data.images.splits["test"][[3, 11]]].tolist()


def test_training_images_are_distorted_a_little():
    spot = torch.zeros(97, 1, 11, 13)
    spot[:, :, 5, 6] = 1.0
    moved = distorted(spot, (np.random.default_rng(seed) for seed in range(97)))
    same = torch.isclose(moved, spot, atol=1e-4).flatten(1).all(1)
    assert 30 < same.sum() < 67  # every other one
    weight = moved.sum((2, 3))
    rows = (moved.sum(3) * torch.arange(11)).sum(2) / weight  # centre of mass
    columns = (moved.sum(2) * torch.arange(13)).sum(2) / weight
    assert (rows - 5).abs().max() < 1.2
    assert (columns - 6).abs().max() < 1.2
    assert rows.std() > 0.2
    assert columns.std() > 0.2


def test_augmentation_depends_on_the_sample_alone(data):
    def batch(augment=Augment.affine):
        other = Data(DataConfig(augment=augment))
        other.setup()
        return other.batch("train", [0, 1, 2], (np.random.default_rng(seed) for seed in range(3)))["images"]

    assert torch.equal(batch(), batch())
    assert not torch.equal(batch(), data.batch("train", [0, 1, 2])["images"])
    assert torch.equal(batch(augment=Augment.none), data.batch("train", [0, 1, 2])["images"])


GRID = [kind for kind in PositionKind if kind not in (PositionKind.alibi, PositionKind.relative)]


@pytest.mark.parametrize("kind", GRID)
def test_every_position_fits_a_grid(data, kind):
    out = make(data, kind)(data.batch("val", [0, 1, 2]))
    assert out.shape == (3, 10)
    assert out.isfinite().all()


def test_patches_that_do_not_divide_are_an_error(data):
    with pytest.raises(ValueError, match="8×8 pixels cannot be cut into patches of 3×3"):
        make(data, patch_size=3)


def test_rollout_by_hand():
    first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # one head: all look at token 0
    second = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])  # all look at token 1
    a1, a2 = (first[0, 0] + torch.eye(2)) / 2, (second[0, 0] + torch.eye(2)) / 2
    torch.testing.assert_close(rollout([first, second])[0], a2 @ a1)
    torch.testing.assert_close(rollout([first, second]).sum(-1), torch.ones(1, 2))


def test_evaluate_writes_what_it_found(data, tmp_path):
    found = evaluate(make(data), data, tmp_path)
    assert found.scores[0].baseline == "support-vector machine"
    assert found.scores[0].baseline_value > 0.97
    assert found.measures["images"] == 450
    for picture in found.figures:
        with Image.open(picture) as image:
            assert image.size[0] > 300
    with open(tmp_path / "confusion.csv", newline="") as file:
        rows = list(csv.reader(file))
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    assert counts.sum() == 450
    assert counts.trace() / 450 == pytest.approx(found.scores[0].value)


def test_predict_names_a_users_images(data, tmp_path):
    model, folder = make(data), tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    digit = (pixels()[0] * 15.9375).astype(np.uint8)
    Image.fromarray(digit).save(folder / "a.png")
    Image.fromarray(digit).resize((80, 80), Image.Resampling.NEAREST).convert("RGB").save(folder / "sub" / "b.png")
    (folder / "notes.txt").write_text("not an image")
    predict(model, str(folder), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["file"].rsplit("/", 1)[1] for row in rows] == ["a.png", "b.png"]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values())
    # The size of a picture does not matter.
    assert rows[0]["probability"] == pytest.approx(rows[1]["probability"], abs=1e-3)
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 3


@pytest.mark.parametrize("kind", ["missing", "empty", "broken"])
def test_predict_says_what_is_wrong_and_writes_nothing(data, tmp_path, kind):
    source = tmp_path / "in"
    if kind != "missing":
        source.mkdir()
    if kind == "broken":
        (source / "a.png").write_bytes(b"\x89PNG not really")
    message = {"missing": "does not exist", "empty": "holds no images", "broken": "cannot be read as an image"}[kind]
    with pytest.raises(ValueError, match=message):
        predict(make(data), str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pool", Pool)
def test_class_token_and_registers_are_no_patches(data, pool):
    adapter = make(data, PositionKind.axial, pool=pool, class_token=True, registers=2, depth=2).eval()
    batch = data.batch("test", range(3))
    tokens = adapter.tokens(batch)
    assert tokens.x.shape == (3, 3 + 16, 24)
    assert (tokens.at[:3] == -1).all()
    hidden = torch.randn(3, 19, 24)
    changed = hidden.clone()
    changed[:, 1:3] += 1.0  # registers stand for nothing
    assert torch.equal(adapter.head(hidden, tokens), adapter.head(changed, tokens))
    changed[:, 0] += torch.randn(24)
    assert torch.equal(adapter.head(hidden, tokens), adapter.head(changed, tokens)) != (pool is Pool.token)


def test_the_class_token_must_be_there_to_be_pooled(data):
    with pytest.raises(ValueError, match=r"model\.class_token=true"):
        make(data, pool=Pool.token)
