"""Text settings take their value literally, all others in Hydra's grammar."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.compose import compose, nest_run_settings, to_hydra_train_overrides, with_sweep_folder
from experiments.overrides import from_hydra, list_override
from experiments.runs import write_config
from experiments.untrusted import read_config

PIECES = [
    "a",
    "b",
    "1e10",
    "3.10",
    "true",
    "null",
    "${run}",
    "\\${",
    "\\",
    "'",
    '"',
    "[",
    "]",
    ",",
    "=",
    ":",
    " ",
    "\n",
    "é",
]
texts = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@settings(max_examples=25, deadline=None, derandomize=True)
@example("1984")
@example("-5")
@example(" ")
@example("The answer is ")
@example('"Hello"')
@example("2024_01_17")
@example("${oc.env:HOME}")
@given(texts)
def test_text_arrives_as_it_was_typed(text):
    assert compose("predict", [f"run={text or 'x'}", f"input={text}"]).input == text
    assert (
        from_hydra(to_hydra_train_overrides([f"run={text}"])[0]) == f"run={text}"
    )  # what a run folder keeps is read back


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(texts, max_size=3))
def test_texts_of_a_list_arrive_as_they_were_typed(elements):
    assert list(compose("generate", ["run=x", "prompt=y", list_override("stop", elements)]).stop) == elements


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("prompt=1984", ["1984"]),
        ("prompt=[INST] Who? [/INST]", ["[INST] Who? [/INST]"]),
        ("prompt=[one, two]", ["one", "two"]),
        ("prompt=['one, two',\"it's\"]", ["one, two", "it's"]),
        ("prompt=a, b", ["a, b"]),
        ("prompt=null", ["null"]),
    ],
)
def test_a_text_alone_is_a_list_of_one(word, expected):
    assert list(compose("generate", ["run=x", word]).prompt) == expected


def test_other_types_keep_their_grammar():
    config = compose("config", ["domain=text", "data=files", "data.path=1e3", "optimizer.lr=1e-3", "init=null"])
    assert (config.data.path, config.optimizer.lr, config.init) == ("1e3", 1e-3, None)
    assert list(compose("fetch", ["ids=[1e10,4hhb]"]).ids) == ["1e10", "4hhb"]


def test_settings_of_other_runs_arrive_as_they_were_typed():
    words = ["domain=text", "data=files", "data.path=Größe, 1e3 'x'.txt"]
    plan = compose("plan", nest_run_settings("plan", [*words, "device=h100"]))
    assert compose("config", list(plan.settings)).data.path == "Größe, 1e3 'x'.txt"


def test_a_configuration_keeps_text_that_looks_like_an_interpolation(tmp_path):
    config = compose("config", ["data=images", "data.path=a/${run}/\\${b", "run=${seed}"])
    write_config(tmp_path, config, {})
    again = read_config(tmp_path)
    assert (again.data.path, again.run) == ("a/${run}/\\${b", "${seed}")


def test_the_runs_of_a_sweep_lie_in_its_folder(attend, tmp_path):
    words = ["-m", "domain=vision", "seed=0,1", "model.dim=8", "model.depth=1", "model.num_heads=1", "run=2024_01_17"]
    done = attend("train", *words, "trainer.max_steps=2", "trainer.val_check_interval=2", "logger=csv")
    assert done.returncode == 0, done.stderr
    runs = [json.loads((tmp_path / "2024_01_17" / name / "summary.json").read_text()) for name in ("0", "1")]
    assert [run["seed"] for run in runs] == [0, 1]
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_has_one_folder():
    with pytest.raises(ValueError, match="run=a,b: a sweep has one folder"):
        with_sweep_folder(["-m", "seed=0,1", "run=a,b"])
    words = to_hydra_train_overrides(["-m", "data=images", "data.path=2024_01_16,1e3", "seed=0,1"], sweep=True)
    assert words == ["-m", "data=images", "data.path='2024_01_16','1e3'", "seed=0,1"]


def test_hydra_makes_no_folder_of_an_interpolation(forked, tmp_path):
    done = forked("train", "domain=vision", "run=a${b}")
    assert done.returncode == 2
    assert "run=a${b}: Hydra cannot make a folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_text(forked):
    done = forked("generate", "run=x", b"prompt=caf\xe9".decode(errors="surrogateescape"))
    assert done.returncode == 2
    assert "attend: 'prompt=caf\\udce9' holds bytes that are no UTF-8" in done.stderr


def test_a_run_is_resumed_from_the_folder_that_was_typed(forked, tmp_path):
    words = [
        "domain=vision",
        "model.dim=8",
        "model.depth=1",
        "model.num_heads=1",
        "logger=csv",
        "trainer.val_check_interval=2",
    ]
    assert forked("train", *words, "run=2024_01_17", "trainer.max_steps=2").returncode == 0
    again = forked("train", "run=2024_01_17", "trainer.max_steps=4")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "2024_01_17" / "summary.json").read_text())["steps"] == 4
    assert OmegaConf.load(Path(tmp_path) / "2024_01_17" / "config.yaml").run == "2024_01_17"


def test_float16_needs_a_gpu(forked):
    done = forked("train", "domain=vision", "trainer.accelerator=cpu", "trainer.precision=16-mixed", "run=x")
    assert done.returncode == 2
    assert "trainer.precision=16-mixed needs a GPU; possible on a CPU: bf16-mixed" in done.stderr
