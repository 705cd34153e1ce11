"""Every command in README and docs composes; those of the quickstart run with small models."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.cli import COMMANDS
from experiments.compose import compose, nest_run_settings, with_init_overrides, with_resume_overrides

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = "domain=sensors"  # a package that is not installed here: tests/examples/test_sensors.py runs it

SMALL = ["model.dim=16", "model.depth=1", "logger=csv", "trainer.max_steps=4", "trainer.val_check_interval=4"]


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of each `attend` line in the code blocks, without comments; parts in [ ] are optional."""
    found: dict[str, list[str]] = {}
    lines = []
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if told := re.match(r"(?:\w+=\S+ )*attend (.*)", line):
                words = shlex.split(re.sub(r"\s\[([\w.]+=[^\]]*)\]", r" \1", told[1]), comments=True)
                if "…" in words:  # as in the first such command of the page
                    words = [*found[words[0]], *words[words.index("…") + 1 :]]
                found.setdefault(words[0], words)
                lines.append(words)
    return lines


ALL = [(page.stem, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page}-{n}" for n, (page, _) in enumerate(ALL)])
def test_a_command_composes(page, words):
    command, *overrides = words
    assert command in COMMANDS
    overrides = [word.replace("=...", "=x") for word in overrides if not re.match(r"-|hydra", word)]
    if ELSEWHERE in overrides:
        return
    if "-m" in words:  # of a sweep its first job
        overrides = [re.sub(r"=(?:tag\(log,interval\()?([^\[,]*),.*", r"=\1", word) for word in overrides]
    if command == "train":
        compose("config", with_init_overrides(with_resume_overrides(overrides)))
    else:
        compose(command, nest_run_settings(command, overrides))


def test_there_are_commands_to_check():
    assert len(ALL) > 50
    assert {words[0] for _, words in ALL} >= {"train", "evaluate", "predict", "explain", "generate", "collect"}


def photographs(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name, shade in (("cat", 60), ("dog", 190)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(11):
            pixels = draw.normal(shade, 20, (70, 90, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")


def structures(folder: Path) -> None:
    (folder / "structures").mkdir()
    draw = np.random.default_rng(0)
    for number in range(24):
        names = draw.choice(["ALA", "SER", "VAL", "TRP", "LYS", "GLU"], 41)
        alpha = draw.normal(size=(41, 3)).cumsum(0) * 2
        lines = [
            f"ATOM  {1:5d}  {atom:3} {name} A{n + 1:4d}    {''.join(f'{x:8.3f}' for x in alpha[n] + k)}  1.00"
            for n, name in enumerate(names)
            for k, atom in enumerate(("N", "CA", "C", "CB"))
        ]
        (folder / "structures" / f"{number}.pdb").write_text("\n".join(lines) + "\n")
    (folder / "mine.fasta").write_text(">one\nMKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ\n")


def novel(folder: Path) -> None:
    (folder / "novel.txt").write_text("It was a dark night; the rain fell in torrents. " * 300)


OWN = {  # heading: what makes the data, and settings that make it quick
    "Photographs": (photographs, ["data.batch_size=5", "data.size=64"]),
    "Proteins": (structures, ["data.batch_size=3", "data.crop_size=32", "data.val_share=0.3", "data.test_share=0.3"]),
    "An environment": (lambda folder: None, ["data.batch_size=7", "data.context=3"]),
    "A novel": (novel, ["data.batch_size=3", "data.context=32"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("heading", OWN)
def test_the_quickstart_runs(heading, attend, tmp_path):
    make, small = OWN[heading]
    make(tmp_path)
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"^## {heading}\n[^#]*?^```\n(.*?)^```", page, flags=re.M | re.S)
    quick = {"train": [*SMALL, *small], "collect": ["episodes=7"], "generate": ["length=9"]}
    for line in block.splitlines():
        words = shlex.split(line)[1:]
        done = attend(*words, *quick.get(words[0], []), ATTEND_DATA=str(tmp_path / "cache"))
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
