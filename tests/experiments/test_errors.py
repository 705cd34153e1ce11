"""Bad input gets one clear sentence: what is wrong, what is possible, the nearest known name."""

import pytest

from experiments.compose import compose, with_resume_overrides
from experiments.runs import load_run


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["optimizer.lr=abc"], ["optimizer.lr=abc", "could not be converted to Float"]),
        (["trainer.max_steps=1.5"], ["trainer.max_steps=1.5", "Integer"]),
        (["optimizer.lrr=1"], ["optimizer.lrr is no setting", "did you mean optimizer.lr?", "optimizer.warmup"]),
        (["domain=text", "model.dimm=1"], ["did you mean model.dim?", "model.depth"]),
        (["optimiser=adamw"], ["did you mean optimizer?", "possible: domain, data, model"]),
        (["domain=vsion"], ["did you mean vision?", "possible: joint, protein, protein_language, rl, text"]),
        (["data=digitz"], ["did you mean digits?"]),
        (["position.kind=rot"], ["none, learned, sinusoidal, rotary, axial"]),
        (["domain=text", "data=digits"], ["is for domain=vision, not for domain=text", "data=files|python_docs"]),
        (["domain=vision", "model=gpt"], ["is for domain=text, not for domain=vision", "model=mae|vit|vit_base"]),
        (["domain=joint", "data=digits"], ["data=… says not for what", "data@data.vision=…"]),
        (["domain=joint", "data.weights.txt=2"], ["did you mean data.weights.text?"]),
        (["domain=joint", "model.mixer=linear"], ["cannot take bias; possible here: softmax, window"]),
        (
            ["experiment=contacts", "domain=vision"],
            ["experiment=contacts is a recipe of another domain; leave out domain"],
        ),
        (["+model.new=1"], ["cannot be added"]),
        (["seed"], ["not of the form key=value"]),
        (["seed=3,5"], ["attend train -m seed=3,5", "seed=[3,5]"]),
        (["seed=[3"], ["not of the form key=value"]),
    ],
)
def test_configuration(overrides, parts):
    with pytest.raises(ValueError, match=r".") as error:
        compose("config", overrides)
    text = str(error.value)
    assert len(text.splitlines()) <= 2
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "text",
    ["Größe L/IMG (1).jpg", "Hello! Who's there?", "'Tis late", 'he said "no"', "Well, then; go", "a: b", "in é\\"],
)
def test_a_text_needs_no_quotes_of_its_own(text):
    assert compose("predict", ["run=x", f"input={text}"]).input == text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "'trian' is no command; possible: train, evaluate, predict, explain, generate, import, export"),
        (["train", "domain=vsion"], "did you mean vision?"),
        (["train", "optimizer.lr=abc"], "could not be converted to Float"),
        (["train", "model.patch_size=3"], "cannot be cut into patches of 3×3"),
        (["train", "model.num_heads=7"], "width 64 must be a multiple of the 7 heads"),
        (["train", "optimizer.lr=-1"], "lr > 0"),
        (["train", "trainer.max_steps=0"], "must be at least 1"),
        (["train", "data.batch_size=0"], "data.batch_size=0 must be"),
        (["train", "--max_steps", "3"], "--max_steps is no option; a setting is written key=value"),
        (["evaluate"], "run is needed: give run=…"),
        (["evaluate", "run=nowhere"], "nowhere is no finished run: it has no config.yaml"),
        (["predict", "run=nowhere", "input=x"], "nowhere is no finished run"),
        (["predict", "run=~/nowhere", "input=x"], "/home/nowhere is no finished run"),
        (["explain", "run=nowhere", "input=x"], "nowhere is no finished run"),
    ],
)
def test_command_line(attend, arguments, part, tmp_path):
    result = attend(*arguments, HOME="/home")
    assert result.returncode == 2
    assert part in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_training_that_did_not_begin_leaves_no_folder(attend, tmp_path):
    result = attend("train", "data=images", "run=mine", "model.window=3")
    assert "attend: model.window does nothing with model.mixer=softmax" in result.stderr
    assert result.returncode == 2
    assert "data.path is needed; give a folder with a sub-folder of images for each class" in result.stderr
    assert not (tmp_path / "mine").exists()


def test_a_run_that_was_stopped_is_said_to_go_on(tmp_path):
    for name in ("config.yaml", "spec.json", "checkpoints/last.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"no weights\.safetensors \(attend train run={tmp_path} goes on with it\)"):
        load_run(tmp_path)


def test_a_run_folder_of_another_domain_is_said_to_be_one(tmp_path):
    for name, text in (("checkpoints/last.ckpt", ""), (".hydra/overrides.yaml", "- domain=vision\n- model.dim=7\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"is a run of domain=vision; give another run=… for a new run"):
        with_resume_overrides(["domain=text", f"run={tmp_path}"])
    assert with_resume_overrides([f"run={tmp_path}"]) == ["domain=vision", "model.dim=7", f"run={tmp_path}"]


def test_the_traceback_can_be_had(attend):
    result = attend("train", "domain=vsion", HYDRA_FULL_ERROR="1")
    assert result.returncode != 0
    assert "Traceback" in result.stderr
