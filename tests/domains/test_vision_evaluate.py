import csv
import json
import warnings
from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import NearestCentroid

from core.attention import probabilities
from core.config import Mixer, PositionConfig
from core.maps import Fusion, gradient_rollout, rollout
from core.probe import Probe
from domains.adapter import mean_loss
from domains.calibration import reliability
from domains.vision import evaluate as evaluating
from domains.vision import predict as predicting
from domains.vision.adapter import Adapter
from domains.vision.config import DataConfig, ModelConfig, Pool
from domains.vision.data import Data
from domains.vision.evaluate import (
    baseline,
    evaluate,
    log_probabilities,
    nearest_mean_accuracy,
    svm_accuracy,
    write_classes,
)
from domains.vision.figures import draw_confusion
from domains.vision.maps import attention_maps, record_attention, to_patch_grid
from domains.vision.predict import predict

MAX_NUMBERED_CLASSES = {"channels": 3, "size": [4, 6], "mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.1]}
SPEC = MAX_NUMBERED_CLASSES | {"classes": [*"abcdefg"]}  # patches of 2×2: a grid of 2×3


@pytest.fixture(scope="module")
def data():
    digits = Data(DataConfig())
    digits.setup()
    return digits


@pytest.fixture(scope="module")
def trained(data):
    """A small ViT of the digits, at some 93 % after seconds."""
    torch.manual_seed(0)
    adapter = Adapter(ModelConfig(dim=32, depth=2, num_heads=4), PositionConfig(), data.spec())
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=5e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=300)
    everything = data.batch("train", range(data.size("train")))
    for _ in range(300):
        chosen = torch.randint(data.size("train"), (64,))
        batch = {name: tensor[chosen] for name, tensor in everything.items()}
        optimizer.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        optimizer.step()
        schedule.step()
    return adapter.eval()


def make(spec=SPEC, **settings):
    torch.manual_seed(0)
    return Adapter(ModelConfig(**{"dim": 24, "depth": 3, "num_heads": 4, **settings}), PositionConfig(), spec).eval()


def sharp(**settings):
    """A model whose attention is far from even, in double precision."""
    adapter = make(**settings).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return adapter


def test_maps_find_what_predictions_rest_on(data, trained):
    """Without the quarter of the patches that a map names, less is left of the prediction than without any other."""
    images = data.batch("test", range(151))["images"]
    seen = record_attention(trained, images)
    maps = {
        "rollout": to_patch_grid(trained, rollout(seen.attention)),
        "max": to_patch_grid(trained, rollout(seen.attention, Fusion.max, discard=0.5)),
        "gradient": to_patch_grid(trained, gradient_rollout(seen.attention, seen.gradient)),
    }

    def left(found: torch.Tensor) -> float:
        named = found >= found.flatten(1).quantile(0.75, 1)[:, None, None]  # (B, h, w)
        pixels = named[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3)  # (B, 1, Y, X)
        hidden = torch.where(pixels, images.mean((2, 3), keepdim=True), images)
        with torch.no_grad():
            guess = trained({"images": images}).argmax(-1, keepdim=True)
            return trained({"images": hidden}).softmax(-1).gather(1, guess).mean().item()

    chance = left(torch.rand(151, 4, 4, generator=torch.Generator().manual_seed(0)))
    for found in maps.values():
        assert left(found) < chance - 0.1 < left(-found) - 0.1


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 2, "reg_tokens": 2}, {"mixer": Mixer.window, "window": 2}])
def test_gradient_of_attention_is_that_of_a_model_that_holds_it(settings):
    """Against a second model that attends with probabilities it keeps, and against finite differences."""
    adapter = sharp(**settings)
    images, classes = torch.rand(2, 3, 4, 6, dtype=torch.double), torch.tensor([5, 2])
    seen = record_attention(adapter, images, classes)
    sites, held = {}, []

    def keep(name):
        return lambda value: sites.setdefault(f"{len(held)}.{name}", value)

    def attend(_):
        q, k, v = (sites[f"{len(held)}.{name}"] for name in "qkv")
        held.append(probabilities(q, k, mask=adapter.transformer.blocks[0].mixer.window_mask))  # pyright: ignore
        held[-1].retain_grad()
        return held[-1] @ v.repeat_interleave(4 // v.shape[1], 1)

    edits = {"*.q": keep("q"), "*.k": keep("k"), "*.v": keep("v"), "*.heads": attend}
    logits = adapter({"images": images}, probe=Probe(edit=edits))
    torch.testing.assert_close(seen.logits, logits)
    logits.gather(1, classes[:, None]).sum().backward()
    for ours, gradient, theirs in zip(seen.attention, seen.gradient, held, strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(gradient, theirs.grad)

    step, (b, h, i, j) = 1e-4, (1, 3, 4, 0)

    def logit(by):
        bump = torch.zeros_like(held[1][0, :, :, :1].expand(2, -1, -1, adapter.config.dim // 4))
        bump[b, h, i] = by * sites["1.v"][b, h // (4 // sites["1.v"].shape[1]), j].detach()
        return adapter({"images": images}, probe=Probe(edit={"1.heads": lambda heads: heads + bump}))[b, classes[b]]

    with torch.no_grad():
        slope = (logit(step) - logit(-step)) / (2 * step)
    torch.testing.assert_close(seen.gradient[1][b, h, i, j], slope, rtol=1e-6, atol=1e-9)


def test_looking_changes_no_prediction_and_needs_no_trained_weight():
    adapter = make(pool=Pool.attention)
    images = torch.rand(3, 3, 4, 6)
    free = record_attention(adapter, images)
    torch.testing.assert_close(free.logits, adapter({"images": images}), rtol=0, atol=0)
    adapter.requires_grad_(False)
    with torch.inference_mode():
        frozen = record_attention(adapter, images.clone())
    for a, b in zip(free.gradient, frozen.gradient, strict=True):
        assert b.abs().max() > 0
        assert torch.equal(a, b)


def test_rollout_by_hand_drops_registers_and_the_class_token():
    """One class token, two registers, six patches; every token looks at a register and at two patches."""
    A = torch.zeros(9, 9)
    A[:, 1], A[:, 4], A[:, 7] = 0.5, 0.3, 0.2
    A[0] = torch.tensor([0, 0.9, 0, 0, 0, 0, 0.1, 0, 0])
    flow = rollout([A.expand(1, 4, 9, 9)])
    token, mean = make(pool=Pool.token, class_token=True, reg_tokens=2), make(class_token=True, reg_tokens=2)
    torch.testing.assert_close(to_patch_grid(token, flow), torch.tensor([[[0, 0, 0], [0.05, 0, 0]]]))
    own = 0.5 / 6  # the residual stream
    want = torch.tensor([[[own, own + 0.15, own], [own, own + 0.1, own]]])
    torch.testing.assert_close(to_patch_grid(mean, flow), want)
    heads = to_patch_grid(mean, A.expand(1, 4, 9, 9))
    assert heads.shape == (1, 4, 2, 3)
    torch.testing.assert_close(heads[0, 3], torch.tensor([[0, 0.3, 0], [0, 0.2, 0]]))


def test_heads_are_fused_and_the_least_is_discarded():
    A = torch.tensor([[[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.2, 0.8]]]])  # (1, 2, 2, 2)
    eye = torch.eye(2)

    def scaled(fused):
        return (fused + eye) / (fused + eye).sum(-1, keepdim=True)

    torch.testing.assert_close(rollout([A])[0], scaled(torch.tensor([[0.7, 0.3], [0.3, 0.7]])))
    torch.testing.assert_close(rollout([A], Fusion.min)[0], scaled(torch.tensor([[0.5, 0.1], [0.2, 0.6]])))
    torch.testing.assert_close(rollout([A], Fusion.max)[0], scaled(torch.tensor([[0.9, 0.5], [0.4, 0.8]])))
    torch.testing.assert_close(rollout([A], Fusion.max, 0.5)[0], scaled(torch.tensor([[0.9, 0.0], [0.0, 0.8]])))
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            rollout([A], discard=share)


def test_gradient_rollout_by_hand():
    A = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]]])
    slope = torch.tensor([[[[2.0, -1.0], [5.0, 4.0]], [[-3.0, 1.0], [4.0, 0.0]]]])
    fused = torch.tensor([[0.5, 0.0], [0.5, 2.0]])  # the mean of [[1, 0], [0, 4]] and [[0, 0], [1, 0]]
    eye = torch.eye(2)
    torch.testing.assert_close(gradient_rollout([A, 2 * A], [slope, slope])[0], (eye + 2 * fused) @ (eye + fused))


def test_maps_of_one_image_are_those_of_it_among_others():
    adapter, images = sharp(class_token=True, reg_tokens=2), torch.rand(3, 3, 4, 6, dtype=torch.double)
    maps = attention_maps(adapter, images)
    assert [*maps] == ["rollout", "gradient", "head 1", "head 2", "head 3", "head 4"]
    seen = record_attention(adapter, images)
    torch.testing.assert_close(maps["rollout"], to_patch_grid(adapter, rollout(seen.attention)))
    torch.testing.assert_close(
        maps["gradient"], to_patch_grid(adapter, gradient_rollout(seen.attention, seen.gradient))
    )
    torch.testing.assert_close(maps["head 3"], to_patch_grid(adapter, seen.attention[-1])[:, 2])


def test_calibration_by_hand():
    chance = np.array([0.2, 0.19, 0.5, 0.5, 1.0])  # of 5 bins: 0.2 ends the first
    bins = reliability(chance, np.array([True, False, True, True, True]), bins=5)
    assert bins.counts.tolist() == [2, 0, 2, 0, 1]
    np.testing.assert_allclose(bins.confidence, [0.195, 0, 0.5, 0, 1])
    np.testing.assert_allclose(bins.accuracy, [0.5, 0, 1, 0, 1])
    assert bins.error == pytest.approx((2 * 0.305 + 2 * 0.5 + 0) / 5)


def test_flips_average_an_image_and_its_mirror_image():
    adapter, images = sharp(), torch.rand(5, 3, 4, 6, dtype=torch.double)
    mirrored = torch.from_numpy(images.numpy()[..., ::-1].copy())
    one, other = (adapter({"images": x}).softmax(-1) for x in (images, mirrored))
    assert (one - other).abs().max() > 1e-3
    torch.testing.assert_close(log_probabilities(adapter, images, flips=True).exp(), (one + other) / 2)
    torch.testing.assert_close(log_probabilities(adapter, mirrored, True), log_probabilities(adapter, images, True))
    torch.testing.assert_close(log_probabilities(adapter, images).exp(), one)


def test_nearest_class_mean_is_that_of_scikit_learn(data):
    (x, y), (held_x, held_y) = (
        (batch["images"].flatten(1).numpy(), batch["labels"].numpy())
        for batch in (data.batch(split, range(data.size(split))) for split in ("train", "test"))
    )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the pixels that are always dark
        theirs = NearestCentroid().fit(x, y).score(held_x, held_y)
    assert nearest_mean_accuracy(data, "test") == pytest.approx(theirs, abs=1.5 / 450)  # a tie may fall either way


def test_the_baseline_fits_the_size_of_the_data(data, monkeypatch):
    assert baseline(data, "test") == ("support-vector machine", svm_accuracy(data, "test"))
    monkeypatch.setattr(evaluating, "SVM_IMAGES", 1211)  # one fewer than there are
    assert baseline(data, "test") == ("nearest class mean", nearest_mean_accuracy(data, "test"))


def test_classes_that_are_never_there_or_never_guessed(tmp_path):
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 0]])  # no b is there; no c is guessed
    found = write_classes(tmp_path / "classes.csv", confusion, ["a", "b", "c"])
    assert found == {"a": 0.75, "c": 0.0}
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert rows == ["class,images,accuracy,precision", "a,4,0.7500,0.6000", "b,0,,0.0000", "c,2,0.0000,"]


def test_evaluate_measures_what_the_model_predicts(data, trained, tmp_path):
    found = evaluate(trained, data, tmp_path, "val", flips=True)
    batch = data.batch("val", range(135))
    with torch.no_grad():
        logs = log_probabilities(trained, batch["images"], flips=True)
    labels, metrics = batch["labels"], found.metrics
    assert metrics["accuracy"] == pytest.approx((logs.argmax(-1) == labels).double().mean().item())
    assert metrics["loss"] == pytest.approx(F.nll_loss(logs, labels).item(), rel=1e-5)
    better = (logs > logs.gather(1, labels[:, None])).sum(1)
    assert metrics["top5_accuracy"] == pytest.approx((better < 5).double().mean().item())
    assert metrics["accuracy"] < metrics["top5_accuracy"] <= 1
    assert 0 < metrics["calibration_error"] < 0.5
    assert metrics["throughput"]["batch_size"] == 64
    assert metrics["throughput"]["images_per_second"] > 10
    assert json.loads(json.dumps(metrics)) == metrics

    with open(tmp_path / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["images"]) for row in rows) == 135
    right = sum(int(row["images"]) * float(row["accuracy"]) for row in rows)
    assert right / 135 == pytest.approx(metrics["accuracy"], abs=1e-4)
    assert [path.name for path in found.figures] == ["rollout.png", "confusion.png", "reliability.png"]
    for path in found.figures:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).min() < 50  # something is drawn


def test_five_classes_even_guesses_and_no_attention(tmp_path):
    """Digits 0 to 4 alone, and a model that cannot tell them apart, nor look at them."""
    data = Data(DataConfig())
    data.setup()
    data.images.classes = data.images.classes[:5]
    data.images.splits = {name: part[data.images.labels[part] < 5] for name, part in data.images.splits.items()}
    adapter = make(data.spec(), mixer=Mixer.convolution, depth=1)
    with pytest.raises(ValueError, match=r"mixer=convolution has no attention to look at; possible: softmax, window"):
        record_attention(adapter, torch.rand(1, 1, 8, 8))
    torch.nn.init.zeros_(adapter.classifier.weight)
    torch.nn.init.zeros_(adapter.classifier.bias)
    found = evaluate(adapter, data, tmp_path)
    assert "top5_accuracy" not in found.metrics
    assert found.metrics["loss"] == pytest.approx(log(5))
    assert found.metrics["calibration_error"] == pytest.approx(abs(0.2 - found.metrics["accuracy"]), abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classes.csv",
        "confusion.csv",
        "confusion.png",
        "reliability.png",
    ]


def test_a_confusion_matrix_of_many_classes_stays_a_page(tmp_path):
    draw_confusion(np.eye(100, dtype=int), [f"the class of number {n}" for n in range(100)], tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as image:
        assert 800 < image.width < 1300
        assert 800 < image.height < 1300


def test_predict_gives_the_models_probabilities_and_its_maps(data, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "BATCH_SIZE", 2)
    images = (data.batch("test", range(3))["images"] * 255).byte()
    (tmp_path / "in").mkdir()
    for n, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / "in" / f"{n}.png")
    written = predict(trained, str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "predictions.json", "maps.png"]
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    with torch.no_grad():
        want = trained({"images": images / 255}).softmax(-1)
    found = torch.tensor([[*row["probabilities"].values()] for row in rows])
    torch.testing.assert_close(found, want)
    assert [row["class"] for row in rows] == [str(n) for n in want.argmax(-1).tolist()]
    with Image.open(tmp_path / "out" / "maps.png") as picture:
        assert picture.height > 7 * 100  # the image, two rollouts, four heads
