"""`attend train --help` lists every setting with its meaning."""

import re

import pytest

from domains.joint.config import DOMAINS
from experiments.cli import main
from experiments.help import comments


def shown(capsys, monkeypatch, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["attend", "train", *words, "--help"])
    monkeypatch.setenv("COLUMNS", "250")  # a line a setting
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [*([f"domain={name}"] for name in DOMAINS), ["model=mae"], ["domain=protein_language"]]
)
def test_every_setting_says_what_it_is(words, capsys, monkeypatch):
    lines = re.findall(r"^  (\S+)=(\S*)(.*)$", shown(capsys, monkeypatch, *words).split("Settings of")[1], flags=re.M)
    assert len(lines) > 50
    assert not [key for key, _, told in lines if not told.strip()]


def test_what_is_chosen_decides_what_is_shown(capsys, monkeypatch):
    page = shown(capsys, monkeypatch, "domain=text", "model.dim=37", "optimizer=muon")
    assert re.search(r"model.dim=37 +width of a token", page)
    assert re.search(r"optimizer.name=muon +.*\(adamw \| muon\)", page)
    assert re.search(r"data= +files \| python_docs \| shakespeare$", page, flags=re.M)
    assert "patch_size" not in page


def test_a_wrong_choice_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["attend", "train", "domain=visoin", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "did you mean vision?" in capsys.readouterr().err


def test_comments_stand_above_or_behind_a_field_and_are_inherited():
    from domains.text.config import DataConfig, ModelConfig

    assert comments(DataConfig)["ngram_lookup"].startswith("lengths of the n-grams")
    assert comments(DataConfig)["context"] == "tokens a sample"
    assert comments(ModelConfig)["num_heads"] == "attentions side by side, each over its part of the width"
