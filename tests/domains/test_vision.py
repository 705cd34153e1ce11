import csv
import gzip
import json
import random
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data.readers.reader_image_folder import ReaderImageFolder

import domains.vision.data
from core.config import PositionConfig, PositionKind
from core.maps import rollout
from domains.data_warnings import DataWarning
from domains.vision import image_folder, sources
from domains.vision.adapter import Adapter
from domains.vision.augment import augment, mixup_cutmix, random_affine
from domains.vision.config import Augment, DataConfig, ModelConfig, OnError, Pool, Source, Stem
from domains.vision.data import Data
from domains.vision.decode import image_files, read_image
from domains.vision.evaluate import evaluate
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
    return Adapter(
        ModelConfig(**{"dim": 24, "depth": 1, "num_heads": 2, **settings}), PositionConfig(kind), data.spec()
    )


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


def test_setup_may_run_twice(data):
    before = data.images
    data.setup()
    assert data.images is before


def test_mean_and_deviation_are_of_all_training_images(data, monkeypatch):
    """Those of digits bit for bit in float32; and of images at even distances where they are too many."""
    images = data.images.read(data.images.splits["train"]).double()
    spec = data.spec()
    assert torch.equal(torch.tensor(spec["mean"]), images.mean((0, 2, 3)).float())
    assert torch.equal(torch.tensor(spec["std"]), images.std((0, 2, 3), correction=0).float())
    monkeypatch.setattr(domains.vision.data, "MAX_STATS_IMAGES", 3)
    three = data.batch("train", [0, 605, 1211])["images"].double()
    assert data.spec()["mean"] == pytest.approx(three.mean((0, 2, 3)).tolist())
    assert data.spec()["std"] == pytest.approx(three.std((0, 2, 3), correction=0).tolist())


def test_a_batch_holds_the_images(data):
    batch = data.batch("test", [3, 11])
    assert batch["images"].shape == (2, 1, 8, 8)
    index = data.images.splits["test"][11]
    assert torch.equal(batch["images"][1, 0] * 16, torch.tensor(pixels()[index], dtype=torch.float32))
    assert batch["labels"].tolist() == data.images.labels[data.images.splits["test"][[3, 11]]].tolist()


def test_training_images_are_distorted_a_little():
    spot = torch.zeros(97, 1, 11, 13)
    spot[:, :, 5, 6] = 1.0
    moved = random_affine(spot, (np.random.default_rng(seed) for seed in range(97)))
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
    assert found.metrics["images"] == 450
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
    with pytest.warns(DataWarning, match=r"1 of 3 files in .*images was left out: 1 \.txt \(first: notes\.txt\)"):
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
    adapter = make(data, PositionKind.axial, pool=pool, class_token=True, reg_tokens=2, depth=2).eval()
    batch = data.batch("test", range(3))
    tokens = adapter.tokens(batch)
    assert tokens.x.shape == (3, 3 + 16, 24)
    assert tokens.positions is not None
    assert (tokens.positions[:3] == -1).all()
    hidden = torch.randn(3, 19, 24)
    changed = hidden.clone()
    changed[:, 1:3] += 1.0  # registers stand for nothing
    assert torch.equal(adapter.head(hidden, tokens), adapter.head(changed, tokens))
    changed[:, 0] += torch.randn(24)
    assert torch.equal(adapter.head(hidden, tokens), adapter.head(changed, tokens)) != (pool is Pool.token)


def test_the_class_token_must_be_there_to_be_pooled(data):
    with pytest.raises(ValueError, match=r"model\.class_token=true"):
        make(data, pool=Pool.token)


def states():
    """Of the global generators of torch, Python and numpy."""
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state(legacy=False))  # noqa: NPY002


@pytest.mark.parametrize("how", Augment)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_draws_from_the_samples_own_generators(how, channels):
    images = torch.rand(31, channels, 17, 19, generator=torch.Generator().manual_seed(0))

    def once(seeds):
        return augment(images, how, [np.random.default_rng(seed) for seed in seeds])

    before = states()
    first = once(range(31))
    assert states() == before
    again = once(range(31))
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert first.min() >= 0 or how is Augment.rand  # erased pixels are noise
    changed = once([*range(30), 97])
    assert torch.equal(changed[:30], first[:30])
    assert torch.equal(first, images) == (how is Augment.none)


def test_crops_are_mirrored_and_moved_copies():
    images = torch.rand(97, 2, 16, 16) + 1.0
    moved = augment(images, Augment.crop, [np.random.default_rng(seed) for seed in range(97)])
    mirrored = 0
    for image, crop in zip(images, moved, strict=True):
        inside = (crop[0] > 0).nonzero()
        (top, left), (bottom, right) = inside.amin(0).tolist(), inside.amax(0).tolist()
        h, w = bottom - top + 1, right - left + 1
        assert h >= 14 and w >= 14  # noqa: PT018
        part = crop[:, top : bottom + 1, left : right + 1]
        rows = slice(16 - h, None) if top == 0 else slice(0, h)
        columns = slice(16 - w, None) if left == 0 else slice(0, w)
        flipped = image.flip(-1)[:, rows, columns]
        mirrored += torch.equal(part, flipped)
        assert torch.equal(part, image[:, rows, columns]) or torch.equal(part, flipped)
    assert 30 < mirrored < 67


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_mixed_images_have_mixed_targets(mixup, cutmix):
    batch = {"images": torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 8, 8), "labels": torch.arange(6)}
    both = mixup_cutmix(batch, 6, mixup, cutmix, np.random.default_rng(1))
    targets = both["targets"]
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    mean = both["images"].mean((1, 2, 3))
    torch.testing.assert_close(targets @ torch.arange(6.0), mean)  # a pixel's value is its label
    assert 0.05 < targets[0, 0] < 0.95
    assert torch.equal(mixup_cutmix(batch, 6, mixup, cutmix, np.random.default_rng(1))["images"], both["images"])
    odd = {name: tensor[:5] for name, tensor in batch.items()}
    with pytest.raises(
        ValueError, match=r"data\.mixup and data\.cutmix mix pairs, not 5 images; give .* an even batch"
    ):
        mixup_cutmix(odd, 6, mixup, cutmix, np.random.default_rng(1))


def folder_of_images(root, sizes=((20, 20),), count=7):
    """A red and a blue class, with one image of another size if there are two sizes."""
    for n, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.zeros((*sizes[i % len(sizes)], 3), np.uint8)
            pixels[..., 2 - 2 * n] = 200 + i
            pixels[: len(pixels) // 2, :, 2 - 2 * n] = 190
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def open_data(root, **settings):
    data = Data(DataConfig(source=Source.folder, path=str(root), test_share=0.3, val_share=0.3, **settings))
    data.setup()
    return data


def test_a_folder_of_ones_own(tmp_path):
    data = open_data(folder_of_images(tmp_path / "a"))
    assert data.images.classes == ["blue", "red"]
    assert data.images.shape == (3, 20, 20)
    assert sum(data.size(split) for split in ("train", "val", "test")) == 14
    batch = data.batch("test", range(data.size("test")))
    assert torch.equal(batch["images"][:, 0].amax((1, 2)) > 0.5, batch["labels"] == 1)
    again = open_data(tmp_path / "a")
    assert all(np.array_equal(data.images.splits[s], again.images.splits[s]) for s in ("train", "val", "test"))
    other = open_data(tmp_path / "a", split_seed=1)
    assert not all(np.array_equal(data.images.splits[s], other.images.splits[s]) for s in ("train", "val", "test"))


def test_folders_that_are_splits_already(tmp_path):
    folder_of_images(tmp_path / "train", count=5)
    folder_of_images(tmp_path / "valid", count=3)
    folder_of_images(tmp_path / "test", count=2)
    data = open_data(tmp_path)
    assert [data.size(split) for split in ("train", "val", "test")] == [10, 6, 4]
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "images")  # as of Tiny ImageNet, without labels
    with pytest.raises(ValueError, match=r"has no training images of images; add some, or remove the others of these"):
        open_data(tmp_path)


def test_images_of_any_size_are_covered(tmp_path):
    root = folder_of_images(tmp_path / "a", sizes=((20, 20), (30, 11)))
    with pytest.raises(ValueError, match=r"images differ in size .*; set data\.size, for example 64"):
        open_data(root)
    data = open_data(root, size=8)
    images = data.batch("train", range(data.size("train")))["images"]
    assert images.shape[1:] == (3, 8, 8)
    assert (images.amax(1) > 0.7).all()  # no bars at the sides


def test_a_photograph_stands_as_its_camera_noted(tmp_path):
    image = Image.new("RGB", (29, 13), "blue")
    image.paste("red", (0, 0, 29, 5))
    noted = Image.Exif()
    noted[0x0112] = 6  # to be turned by 90° to the right
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=noted)
    image.save(tmp_path / "upright.png")
    upright, turned = (read_image(tmp_path / name, (3, 13, 29)) for name in ("upright.png", "turned.png"))
    assert np.array_equal(turned, upright)


def test_photographs_that_are_left_out_are_said_to_be(tmp_path):
    root = folder_of_images(tmp_path / "a")
    (root / "red" / "IMG_1.HEIC").touch()
    said = r"1 of 15 files in .*a was left out: 1 \.heic, which Pillow cannot read: save as JPEG \(first: red/IMG_1"
    with pytest.warns(DataWarning, match=said):
        data = open_data(root)
    assert sum(data.size(split) for split in ("train", "val", "test")) == 14
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "IMG_2.HEIC").touch()
    with pytest.raises(ValueError, match=r"holds no images.*, but 1 \.heic, which Pillow cannot read: save as JPEG"):
        image_files(tmp_path / "b")


def test_what_nobody_put_there_is_no_image(tmp_path):
    root = folder_of_images(tmp_path / "a")
    for name in ("__MACOSX/red/0.png", ".ipynb_checkpoints/0.png", "red/.thumbnails/0.png", "red/._0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no image")
    data = open_data(root)
    assert data.images.classes == ["blue", "red"]
    assert len(data.images.labels) == 14


def test_images_that_are_not_kept_are_read_again(tmp_path, monkeypatch):
    """The same batches, and never the pixels of all 106 images (4 MB) at once."""
    root = folder_of_images(tmp_path / "a", sizes=((131, 97),), count=53)
    kept = open_data(root)
    monkeypatch.setattr(image_folder, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(image_folder, "ThreadPoolExecutor", partial(image_folder.ThreadPoolExecutor, 2))
    tracemalloc.start()
    again = open_data(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6
    for split in ("train", "val", "test"):
        ours, theirs = (data.batch(split, [0, 11, 7]) for data in (kept, again))
        assert torch.equal(ours["images"], theirs["images"])
        assert torch.equal(ours["labels"], theirs["labels"])


def test_sixteen_bits_are_read_as_eight(tmp_path):
    grey = np.arange(11 * 17, dtype=np.uint8).reshape(11, 17)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png", (1, 11, 17))[0], grey)


def test_broken_files_are_named_or_skipped(tmp_path):
    root = folder_of_images(tmp_path / "a")
    (root / "red" / "broken.png").write_bytes(b"\x89PNG no image")
    (root / "red" / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"broken\.png cannot be read .*2 such files.*on_error=skip"):
        open_data(root)
    with pytest.warns(DataWarning, match=r"2 of 16 files in .*: 2 that cannot be read \(first: .*broken\.png cannot"):
        data = open_data(root, on_error=OnError.skip)
    assert sum(data.size(split) for split in ("train", "val", "test")) == 14
    (root / "green").mkdir()
    (root / "green" / "broken.png").write_bytes(b"\x89PNG no image")
    with pytest.warns(DataWarning) as said:
        assert open_data(root, on_error=OnError.skip).images.classes == ["blue", "red"]
    assert "3 of 17 files" in str(said[0].message)
    assert "1 of 3 class folders" in str(said[1].message)
    assert "1 without an image (first: green)" in str(said[1].message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "photos"}, r"data\.path=photos is not read by data=digits; say data=images"),
        ({"size": 16}, r"data\.size=16 does not fit data=digits, whose images have 8×8 pixels"),
        ({"source": Source.timm}, r"needs data\.name="),
        (
            {"source": Source.timm, "name": "WDS/cc3m"},
            r"data\.name=WDS/cc3m is a stream, .*; possible: hfds/…, torch/…",
        ),
        (
            {"source": Source.timm, "name": "folder", "path": "nowhere"},
            r"timm cannot open 'folder' \(data\.path=nowhere",
        ),
    ],
)
def test_settings_that_a_source_cannot_heed(settings, message):
    with pytest.raises(ValueError, match=message):
        Data(DataConfig(**settings)).setup()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves files open
def test_a_folder_as_timm_reads_it(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(ReaderImageFolder, "__getitem__", spied(ReaderImageFolder.__getitem__, decoded))
    config = DataConfig(source=Source.timm, name="folder", path=str(tmp_path), val_share=0.4)
    folder_of_images(tmp_path / "train", sizes=((23, 19),), count=5)
    folder_of_images(tmp_path / "validation", sizes=((23, 19),), count=3)
    data = Data(config)
    data.setup()
    assert len(decoded) < 16  # for the size, and to see that images differ; labels need no pixels
    assert data.images.classes == ["blue", "red"]
    assert [data.size(split) for split in ("train", "val", "test")] == [6, 4, 6]
    batch = data.batch("test", range(6))
    assert batch["images"].shape == (6, 3, 23, 19)
    assert torch.equal(batch["images"][:, 0].amax((1, 2)) > 0.5, batch["labels"] == 1)
    (tmp_path / "validation" / "red").rename(tmp_path / "validation" / "green")
    with pytest.raises(ValueError, match="the classes of 'folder' in training are blue, red; in test, blue, green"):
        Data(config).setup()
    config.path = str(tmp_path / "train")
    with pytest.raises(ValueError, match=r"train has no folders train and validation; data=images draws the splits"):
        Data(config).setup()


def spied(method, calls):
    def spy(dataset, index):
        calls.append(index)
        return method(dataset, index)

    return spy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is no folder"),
        (lambda root: root.mkdir(), "holds no images"),
        (lambda root: folder_of_images(root / "one"), "images of one class only"),
        (lambda root: folder_of_images(root, count=1), r"cannot be split by data\.test_share"),
    ],
)
def test_folders_that_cannot_be_learned_from(tmp_path, make, message):
    root = tmp_path / "a"
    make(root)
    if message == "images of one class only":
        (root / "one" / "red").rename(root / "one" / "blue2")
    with pytest.raises(ValueError, match=message):
        open_data(root)
    loose = tmp_path / "loose"
    folder_of_images(loose)
    (loose / "red" / "0.png").rename(loose / "0.png")
    with pytest.raises(ValueError, match=r"0\.png lies in no sub-folder"):
        open_data(loose)


def test_fashion_mnist_as_debian_lays_it_out(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        for kind, array in (
            ("images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10),
        ):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (tmp_path / f"{part}-{kind}.gz").write_bytes(gzip.compress(head + array.tobytes()))
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", tmp_path)
    data = Data(DataConfig(source=Source.fashion_mnist, val_share=0.5))
    data.setup()
    assert [data.size(split) for split in ("train", "val", "test")] == [30, 30, 20]
    assert data.images.classes[9] == "Ankle boot"
    want = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    first = data.images.splits["train"][0]
    assert torch.equal(data.batch("train", [0])["images"][0, 0] * 255, torch.tensor(want[first], dtype=torch.float32))


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_a_convolutional_stem_leaves_as_many_patches(data, patch_size):
    adapter = make(data, stem=Stem.conv, patch_size=patch_size)
    assert adapter.tokens(data.batch("test", [0])).x.shape == (1, (8 // patch_size) ** 2, 24)
    with pytest.raises(ValueError, match=r"stem needs a model\.patch_size of 1, 2, 4, 8"):
        make(_wide(), stem=Stem.conv, patch_size=3)


def _wide():
    class Wide:
        def spec(self):
            return {"classes": ["a", "b"], "channels": 1, "size": [9, 9], "mean": [0.5], "std": [0.2]}

    return Wide()


def test_a_patch_that_leaves_few_tokens_is_warned_of(data):
    spec = {"classes": ["a", "b"], "channels": 3, "size": [32, 32], "mean": [0.5] * 3, "std": [0.2] * 3}
    with pytest.warns(UserWarning, match="leave 4 tokens"):
        Adapter(ModelConfig(patch_size=16), PositionConfig(), spec)


def test_a_patch_that_makes_very_many_tokens_is_warned_of(data):
    spec = {"classes": ["a", "b"], "channels": 3, "size": [66, 64], "mean": [0.5] * 3, "std": [0.2] * 3}
    with pytest.warns(UserWarning, match=r"make 1056 tokens of an image of 66×64 .* model\.patch_size, such as 8"):
        Adapter(ModelConfig(patch_size=2), PositionConfig(), spec)
