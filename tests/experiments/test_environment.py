"""The environment that is recorded with every figure."""

import sys

import pytest

from experiments.environment import environment, strip_folders


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("/home/me/data/novel.txt", "novel.txt"),
        ("data.path=/home/me/novel.txt", "data.path=novel.txt"),
        ("data.path=[/a/b.npz,/c/d.npz]", "data.path=[b.npz,d.npz]"),
        ("data.path='/a/b c.npz'", "data.path='b c.npz'"),
        ("run=runs/novel", "run=runs/novel"),
        ("position@model.positions.text=rotary", "position@model.positions.text=rotary"),
        ("prompt=either/or", "prompt=either/or"),
        ("--limit", "--limit"),
    ],
)
def test_a_command_is_told_without_the_folders_of_a_machine(word, told):
    assert strip_folders(word) == told


def test_no_record_names_a_folder_of_this_machine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/attend", "train", "data.path=/home/me/novel.txt"])
    assert environment()["command"] == "attend train data.path=novel.txt"
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/attend", "data.path=/home/me/novel.txt"])  # as Hydra is given it
    assert environment()["command"] == "attend train data.path=novel.txt"
