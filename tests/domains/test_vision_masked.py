"""A masked autoencoder, and runs that start from the weights of another one."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from core.config import Mixer, PositionConfig, PositionKind, TransformerConfig
from domains.adapter import mean_loss, mean_metrics
from domains.sampling import StepDataset
from domains.vision import adapter as vision
from domains.vision.config import DataConfig, Pool, Stem
from domains.vision.config import ModelConfig as VitConfig
from domains.vision.init_from import fitted, resample_positions
from domains.vision.masked.adapter import Adapter
from domains.vision.masked.config import ModelConfig
from domains.vision.masked.data import Data
from domains.vision.masked.evaluate import evaluate, mean_image_loss
from domains.vision.masked.predict import predict
from experiments.compose import compose
from experiments.config import OptimizerConfig, OptimizerName
from experiments.evaluate import evaluate as evaluate_run
from experiments.runs import make_adapter, make_data
from experiments.train import train
from experiments.training.init_from import group_by_module, load_init_weights
from experiments.training.optimizers import make_optimizer
from experiments.training.progress import make_progress

SPEC = {"classes": ["a", "b", "c"], "channels": 2, "size": [6, 10], "mean": [0.4, 0.6], "std": [0.3, 0.2]}
SMALL = {"dim": 24, "depth": 1, "num_heads": 2}
GRID = [kind for kind in PositionKind if kind not in (PositionKind.alibi, PositionKind.relative)]


@pytest.fixture(scope="module")
def data():
    digits = Data(DataConfig())
    digits.setup()
    return digits


def make(spec=SPEC, kind=PositionKind.learned, **settings):
    """A masked autoencoder; on SPEC it sees 4 of 3×5 patches of 2×2 pixels."""
    torch.manual_seed(0)
    decoder = TransformerConfig(dim=12, depth=1, num_heads=3)
    return Adapter(ModelConfig(**{**SMALL, "decoder": decoder, **settings}), PositionConfig(kind), spec)


def make_vit(spec=SPEC, kind=PositionKind.learned, **settings):
    torch.manual_seed(1)
    return vision.Adapter(VitConfig(**{**SMALL, **settings}), PositionConfig(kind), spec)


def images(count=7):
    draw = torch.Generator().manual_seed(3)
    return {"images": torch.rand(count, 2, 6, 10, generator=draw), "noise": torch.rand(count, 6, 10, generator=draw)}


def hidden_pixels(model, noise):
    """(B, 1, Y, X), true where a patch is hidden; written without the model's own mask."""
    first = noise[:, ::2, ::2].flatten(1)  # (B, L)
    bar = first.sort(1).values[:, model.num_visible - 1 : model.num_visible]
    return torch.kron((first > bar).view(-1, 1, *model.grid).float(), torch.ones(1, 1, 2, 2)).bool()


def test_a_training_batch_depends_on_its_step_alone(data):
    def step(number, rank=0, world=1):
        return StepDataset(data.size("train"), 6, 0, data._train_batch, rank, world)[number]["noise"]

    assert step(5).shape == (6, 8, 8)
    assert torch.equal(step(5), step(5))
    assert not torch.equal(step(5), step(6))
    assert torch.equal(step(5)[1::2], step(5, 1, 2))
    passed = [StepDataset(7, 7, 0, data._train_batch)[n] for n in (0, 1)]  # the same seven images, twice
    assert sorted(passed[0]["labels"].tolist()) == sorted(passed[1]["labels"].tolist())
    assert len({row.numpy().tobytes() for batch in passed for row in batch["noise"]}) == 14


def test_an_image_is_evaluated_under_one_mask(data):
    whole = data.batch("val", range(5))["noise"]
    assert torch.equal(whole[3], data.batch("val", [3])["noise"][0])
    assert not torch.equal(whole[3], whole[2])
    assert not torch.equal(whole, data.batch("test", range(5))["noise"])


@pytest.mark.parametrize("kind", GRID)
@pytest.mark.parametrize("stem", Stem)
def test_what_is_seen_does_not_depend_on_what_is_hidden(kind, stem):
    model, batch = make(kind=kind, stem=stem, class_token=True, reg_tokens=2).eval(), images()
    hidden = hidden_pixels(model, batch["noise"])
    assert hidden.float().mean() == pytest.approx(11 / 15)
    other = torch.where(hidden, torch.full_like(batch["images"], torch.nan), batch["images"])
    tokens = model.tokens(batch)
    assert tokens.x.shape == (7, 3 + 4, 24)
    assert torch.equal(tokens.x, model.tokens(batch | {"images": other}).x)
    with torch.no_grad():
        assert torch.equal(model(batch), model(batch | {"images": other}))
        seen = torch.where(hidden, batch["images"], 1 - batch["images"])
        assert (model(batch | {"images": seen}) - model(batch)).abs().amin(0).min() > 0  # all of it is looked at


def test_the_encoder_is_the_vit_on_the_visible_patches():
    """One patch of 15 is hidden: what is left are the tokens of a classifier with the same weights."""
    model, batch = make(mask_ratio=0.05, class_token=True).eval(), images()
    vit = make_vit(class_token=True).eval()
    assert group_by_module(model.state_dict().keys() - vit.state_dict().keys(), model.state_dict()) == [
        "decoder",
        "decoder_embed",
        "decoder_pred",
        "mask_token",
    ]
    vit.load_state_dict(model.state_dict(), strict=False)
    whole, tokens = vit.tokens(batch), model.tokens(batch)
    assert tokens.positions is not None
    for row, at, x in zip(whole.x, tokens.positions, tokens.x, strict=True):
        index = [0, *(1 + 5 * r + c for r, c in at[1:].tolist())]
        assert len(set(index)) == 15
        torch.testing.assert_close(x, row[index], rtol=0, atol=1e-6)


def test_the_loss_by_hand():
    model, batch = make(), images(2)
    predictions = torch.randn(2, 15, 8, generator=torch.Generator().manual_seed(5))
    hidden = hidden_pixels(model, batch["noise"])
    losses = []
    for n in range(2):
        errors = []
        for patch in range(15):
            y, x = 2 * (patch // 5), 2 * (patch % 5)
            if hidden[n, 0, y, x]:
                cut = batch["images"][n, :, y : y + 2, x : x + 2]  # (C, 2, 2)
                cut = (cut - torch.tensor([0.4, 0.6]).view(2, 1, 1)) / torch.tensor([0.3, 0.2]).view(2, 1, 1)
                target = ((cut - cut.mean()) / cut.std(correction=0)).flatten()
                errors.append((predictions[n, patch] - target).square().mean())
        assert len(errors) == 11
        losses.append(torch.stack(errors).mean())
    torch.testing.assert_close(model.metrics(predictions, batch)["loss"], torch.stack(losses), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        mean_loss(model.loss(predictions, batch)), torch.stack(losses).mean(), rtol=1e-4, atol=1e-5
    )


def test_a_perfect_prediction_reconstructs_the_image(monkeypatch):
    model, batch = make(), images()
    hidden = hidden_pixels(model, batch["noise"]).expand(-1, 2, -1, -1)
    masked, reconstructed = model.reconstruct(batch)
    assert torch.equal(masked[~hidden], batch["images"][~hidden])
    assert torch.equal(reconstructed[~hidden], batch["images"][~hidden])
    assert (masked - model.mean)[hidden].abs().max() == 0
    assert not torch.allclose(reconstructed, batch["images"], atol=0.1)
    monkeypatch.setattr(model, "forward", lambda batch: model.targets(batch["images"]))
    torch.testing.assert_close(model.reconstruct(batch)[1], batch["images"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", Pool)
def test_every_parameter_learns(pool):
    model, batch = make(pool=pool, class_token=True), images()
    mean_loss(model.loss(model(batch), batch)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_learns_to_reconstruct_digits(data):
    """Better than the mean image, which is the best constant prediction."""
    model = make(data.spec(), decoder=TransformerConfig(dim=24, depth=1, num_heads=3))
    optimizer = make_optimizer(model, OptimizerConfig(name=OptimizerName.muon, lr=1e-2))
    steps = StepDataset(data.size("train"), 64, 0, data._train_batch)
    for step in range(160):
        batch = steps[step]
        optimizer.zero_grad()
        mean_loss(model.loss(model(batch), batch)).backward()
        optimizer.step()
    held_out = mean_metrics(model, data.eval_dataloader("val"))["loss"]
    assert held_out < 0.97 * mean_image_loss(model, data, "val")


def test_evaluate_and_predict_draw_what_they_reconstructed(data, tmp_path):
    model = make(data.spec()).eval()
    found = evaluate(model, data, tmp_path / "out")
    score = found.scores[0]
    mean = model.targets(data.batch("train", range(data.size("train")))["images"]).mean(0)
    test = data.batch("test", range(data.size("test")))
    hidden = hidden_pixels(model, test["noise"])[:, 0, ::2, ::2].flatten(1)
    best = (model.targets(test["images"]) - mean)[hidden].square().mean().item()
    assert score.baseline_value == pytest.approx(best, rel=1e-4)
    assert best < score.value  # of an untrained model
    (tmp_path / "in").mkdir()
    for n in range(9):
        Image.linear_gradient("L").resize((17, 31 + n)).save(tmp_path / "in" / f"{n}.png")
    written = predict(model, str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in written] == ["reconstructions-1.png", "reconstructions-2.png"]
    for path in [*found.figures, *written]:
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 0
    with pytest.raises(ValueError, match="does not exist"):
        predict(model, str(tmp_path / "nowhere"), tmp_path / "nothing")
    (tmp_path / "in" / "z.png").write_bytes(b"no image")  # in the second picture
    with pytest.raises(ValueError, match=r"z\.png cannot be read as an image"):
        predict(model, str(tmp_path / "in"), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 1.0}, r"model\.mask_ratio=1\.0 hides 15 of 15 patches"),
        ({"mask_ratio": 0.0}, r"model\.mask_ratio=0\.0 hides 0 of 15 patches"),
        ({"mixer": Mixer.convolution}, r"model\.mixer=convolution .* use softmax, linear, performer"),
        ({"patch_size": 1, "spec": SPEC | {"channels": 1, "mean": [0.5], "std": [0.1]}}, "a patch of one number"),
    ],
)
def test_what_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def saved(folder, model, spec=SPEC, package="domains.vision.masked"):
    """A run folder, as far as `load_init_weights` reads it."""
    folder.mkdir()
    save_file(
        {name: weight.contiguous() for name, weight in model.state_dict().items()}, folder / "weights.safetensors"
    )
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "config.yaml").write_text(
        f"domain: {{package: {package}}}\ndata: {{}}\nmodel: {{dim: {SMALL['dim']}}}\nposition: {{}}\nseed: 0\n"
    )
    return folder


@pytest.mark.parametrize("pool", Pool)
def test_a_classifier_starts_with_the_trunk_of_an_autoencoder(tmp_path, pool):
    pre, vit = make(pool=pool, class_token=True), make_vit(pool=pool, class_token=True)
    before = {name: weight.clone() for name, weight in vit.state_dict().items()}
    said = load_init_weights(vit, "domains.vision", saved(tmp_path / "pre", pre))
    after, theirs = vit.state_dict(), pre.state_dict()
    anew = {name for name in after if name.startswith(("classifier.", "attn_pool."))}
    assert len(after.keys() - anew) > 15
    for name, weight in after.items():
        assert torch.equal(weight, before[name] if name in anew else theirs[name]), name
    new_pool = "attn_pool, " if pool is Pool.attention else ""
    assert said.endswith(f"anew: {new_pool}classifier; left there: decoder, decoder_embed, decoder_pred, mask_token")


def test_a_head_is_taken_for_the_same_classes_alone(tmp_path):
    old, other = make_vit(), SPEC | {"classes": ["a", "b", "x"]}
    torch.nn.init.constant_(old.classifier.weight, 0.5)
    folder, same, new = saved(tmp_path / "old", old), make_vit(), make_vit(other)
    assert "anew" not in load_init_weights(same, "domains.vision", folder)
    assert torch.equal(same.classifier.weight, old.classifier.weight)
    assert "anew: classifier" in load_init_weights(new, "domains.vision", folder)
    assert not torch.equal(new.classifier.weight, old.classifier.weight)


def test_positions_are_resampled_to_another_resolution(tmp_path):
    size = SPEC | {"size": [14, 22], "mean": [0.1, 0.2]}
    old, new = make(), make_vit(size)
    said = load_init_weights(new, "domains.vision", saved(tmp_path / "old", old))
    assert "resized: transformer.position.table" in said
    table = new.state_dict()["transformer.position.table"]
    assert table.shape == (7 * 11, 24)
    assert torch.equal(table, resample_positions(old.state_dict()["transformer.position.table"], (3, 5), (7, 11)))
    assert torch.equal(new.mean, old.mean)  # of the pixels that the weights know
    again = make()
    assert torch.equal(
        fitted(again, dict(old.state_dict()), SPEC)["transformer.position.table"],
        old.state_dict()["transformer.position.table"],
    )


def test_a_grid_of_as_many_patches_is_resampled_too(tmp_path):
    turned = make_vit(SPEC | {"size": [10, 6]})
    assert turned.grid == (5, 3)
    old = make_vit()
    load_init_weights(turned, "domains.vision", saved(tmp_path / "old", old))
    table = turned.state_dict()["transformer.position.table"]
    assert table.shape == old.state_dict()["transformer.position.table"].shape
    assert not torch.equal(table, old.state_dict()["transformer.position.table"])


def test_resampling_by_what_it_must_keep():
    old, new = (3, 5), (7, 11)
    constant = torch.randn(1, 13).expand(15, 13)
    torch.testing.assert_close(resample_positions(constant, old, new), constant[:1].expand(77, 13))
    rows = torch.arange(3.0).repeat_interleave(5)[:, None].expand(15, 13)  # grows downwards alone
    up = resample_positions(rows, old, new).unflatten(0, new)  # (7, 11, C)
    assert (up.diff(dim=0) > 0).all()
    torch.testing.assert_close(up, up[:, :1].expand_as(up))


def test_a_table_beside_a_rotation_is_resampled(tmp_path):
    axial = PositionConfig(PositionKind.axial, table=True)
    old = vision.Adapter(VitConfig(dim=24, depth=1, num_heads=2), axial, SPEC)
    new = vision.Adapter(old.config, axial, SPEC | {"size": [14, 22]})
    assert "resized: transformer.position.table.table" in load_init_weights(
        new, "domains.vision", saved(tmp_path / "old", old)
    )


@pytest.mark.parametrize("missing", ["spec.json", "weights.safetensors"])
def test_a_folder_that_is_no_run(tmp_path, missing):
    folder = saved(tmp_path / "old", make())
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=f"old is no finished run: it has no {missing}"):
        load_init_weights(make_vit(), "domains.vision", folder)


def test_weights_that_do_not_fit(tmp_path):
    other = make_vit(dim=12)
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    with pytest.raises(ValueError, match=rf"nothing of the transformer .* needs model\.dim={SMALL['dim']}$"):
        load_init_weights(other, "domains.vision", saved(tmp_path / "old", make()))
    assert all(torch.equal(weight, before[name]) for name, weight in other.state_dict().items())


def test_any_domain_starts_from_names_and_shapes(tmp_path):
    """And from another domain's trunk, where it has the same shape; a text's places are none of an image."""
    config = compose("config", ["domain=text", "model.dim=24", "model.depth=1", "model.num_heads=2"])
    spec = make_data(config).spec()
    torch.manual_seed(0)
    old, new = (make_adapter(config, spec) for _ in range(2))
    said = load_init_weights(new, config.domain.package, saved(tmp_path / "old", old, spec, config.domain.package))
    assert "anew" not in said
    for name, weight in new.state_dict().items():
        assert torch.equal(weight, old.state_dict()[name])

    placed = compose("config", ["domain=text", "position=learned", "data.context=15", "model.dim=24", "model.depth=1"])
    text = make_adapter(placed, spec | {"context": 15})
    said = load_init_weights(make_vit(), "domains.vision", saved(tmp_path / "text", text, spec, config.domain.package))
    assert "transformer.blocks.0.mixer" in said.partition("anew")[0]
    assert "transformer.position" in said.partition("anew")[2]


def test_modules_names_the_fewest():
    names = ["a", "b.c.w", "b.c.v", "b.d.w", "bb.w"]
    assert group_by_module(["b.c.w", "b.c.v"], names) == ["b.c"]
    assert group_by_module(["b.c.w", "b.d.w"], names) == ["b.c.w", "b.d"]
    assert group_by_module(["a", "b.c.w", "b.c.v", "b.d.w"], names) == ["a", "b"]


COMMAND = ["domain=vision", "model.dim=32", "model.depth=1", "trainer.val_check_interval=20", "logger=csv"]


def test_pretrain_then_classify_by_the_command_line(forked, tmp_path):
    first = forked(
        "train",
        *COMMAND,
        "model=mae",
        "model.decoder.dim=16",
        "trainer.max_steps=40",
        "trainer.plot_every_n_steps=20",
        "run=pre",
    )
    assert first.returncode == 0, first.stderr
    pre = load_file(tmp_path / "pre" / "weights.safetensors")
    assert len(list((tmp_path / "pre" / "figures").glob("step_*.png"))) == 2
    evaluate_run(tmp_path / "pre", tmp_path / "judged")
    assert (tmp_path / "judged" / "reconstructions.png").is_file()

    tuned = forked("train", *COMMAND, "trainer.max_steps=20", "init=pre", "run=tuned")
    assert tuned.returncode == 0, tuned.stderr
    said = "starting from pre; taken: mean, patch_embed, std, transformer; anew: classifier; left there: decoder"
    assert said in tuned.stdout
    shutil.rmtree(tmp_path / "pre")  # a run that goes on needs it no more
    more = forked("train", "run=tuned", "trainer.max_steps=40")
    assert more.returncode == 0, more.stderr
    assert "starting from" not in more.stdout
    assert torch.equal(pre["std"], load_file(tmp_path / "tuned" / "weights.safetensors")["std"])
    other = compose("config", [*COMMAND, "trainer.max_steps=60", "init=other", f"run={tmp_path / 'tuned'}"])
    with make_progress() as progress, pytest.raises(ValueError, match=r"trained with init=pre; .* with init=other"):
        train(other, tmp_path / "tuned", progress)


def test_a_wrong_folder_is_one_clear_error(forked, tmp_path):
    wrong = forked("train", *COMMAND, "init=nowhere", "run=new")
    assert wrong.returncode == 2
    assert "init=nowhere is no finished run: it has no config.yaml" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1
    assert not (tmp_path / "new" / "config.yaml").exists()
