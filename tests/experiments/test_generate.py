"""`attend generate`, through the door that the command uses."""

import json
from importlib import import_module

import pytest
import torch

from experiments.compose import compose
from experiments.runs import make_adapter, write_config, write_weights

SPEC = {"context": 37, "vocab_size": 256, "tokenizer": {"kind": "bytes"}, "ngram_orders": [], "ngram_text": ""}


@pytest.fixture
def run(tmp_path) -> str:
    torch.manual_seed(0)
    config = compose("config", ["domain=text", "model.dim=16", "model.depth=1", f"run={tmp_path / 'run'}"])
    adapter = make_adapter(config, SPEC)
    rows = adapter.state_dict()["lm_head.weight"]
    rows[ord("a") : ord("z") + 1].normal_()  # the likeliest byte is a letter
    write_config(tmp_path / "run", config, SPEC)
    write_weights(tmp_path / "run", adapter.state_dict())
    return str(tmp_path / "run")


SILENT = {7: None, 8: None, 11: None, 12: None, 13: None}  # control characters that a terminal is spared


def generate(*overrides: str) -> None:
    import_module("experiments.generate").run(compose("generate", list(overrides)))


def test_one_prompt_is_written_as_it_comes_and_kept(run, tmp_path, capsys):
    generate(f"run={run}", "prompt=The class", "length=23", "seed=5")
    made = json.loads((tmp_path / "run" / "generate" / "continuation.json").read_text(encoding="utf-8"))
    said = capsys.readouterr().out
    text = made["texts"][0]["continuation"]
    assert made["texts"][0]["prompt"] == "The class"
    assert said.startswith(text.translate(SILENT))
    assert "23 tokens, " in said.replace("\n", "")
    assert made["tokens"] == 23
    generate(f"run={run}", "prompt=The class", "length=23", "seed=5", f"output={tmp_path / 'again'}")
    assert json.loads((tmp_path / "again" / "continuation.json").read_text(encoding="utf-8"))["texts"] == made["texts"]


def test_several_prompts_and_a_stop_string(run, tmp_path, capsys):
    generate(f"run={run}", "prompt=[one,two]", "length=31", "temperature=0")
    made = json.loads((tmp_path / "run" / "generate" / "continuation.json").read_text(encoding="utf-8"))
    text = made["texts"][1]["continuation"]
    assert f"1: {text.translate(SILENT)}" in capsys.readouterr().out
    stop = text[3:5]
    generate(
        f"run={run}",
        "prompt=two",
        "length=31",
        "temperature=0",
        f"stop=[{stop}]",
        f"output={tmp_path / 'cut'}",
    )
    cut = json.loads((tmp_path / "cut" / "continuation.json").read_text(encoding="utf-8"))
    assert cut["texts"][0]["continuation"] == text[: text.index(stop)]


def test_blanks_are_a_prompt(run, tmp_path):
    generate(f"run={run}", "prompt=  ", "length=3", "temperature=0")
    made = json.loads((tmp_path / "run" / "generate" / "continuation.json").read_text(encoding="utf-8"))
    assert made["texts"][0]["prompt"] == "  "


def test_a_draft_leaves_the_text_as_it_is(run, tmp_path):
    found = []
    for draft in ([], [f"draft={run}"]):
        generate(f"run={run}", "prompt=two", "length=31", "temperature=0", *draft)
        found.append(json.loads((tmp_path / "run" / "generate" / "continuation.json").read_text(encoding="utf-8")))
    assert found[0]["texts"] == found[1]["texts"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompt=[]", "is no text; give prompt=TEXT, a text file, or several"),
        ("special=true", "this model's tokenizer has no special tokens"),
        ("top_p=0", "sampling needs 0 < top_p <= 1"),
        ("prompt=", "the prompt is empty"),
        ("stop=['']", "a stop string is empty"),
        ("run=nowhere", "nowhere"),
        ("draft=nowhere", "nowhere"),
    ],
)
def test_what_cannot_be_is_one_clear_error(run, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        generate(f"run={run}", "prompt=x", "length=5", override)
    assert not (tmp_path / "run" / "generate").exists()
