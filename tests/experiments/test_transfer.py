"""Transfer of cores: which weights are loaded, which are frozen, which runs are planned, and the table by hand."""

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from core.config import PositionConfig
from domains.protein.masked.adapter import Adapter as Residues
from domains.protein.masked.config import ModelConfig as ResiduesConfig
from domains.text.adapter import Adapter as Text
from domains.text.config import ModelConfig as TextConfig
from experiments import job, transfer
from experiments.compose import compose, nest_run_settings
from experiments.config import Mode, TransferConfig
from experiments.report.transfer import write_transfer
from experiments.runs import make_adapter, make_data, to_dataclass, write_config, write_json, write_weights
from experiments.train import train
from experiments.training.init_from import load_init_weights
from experiments.training.progress import make_progress

CORE = ["core.dim=12", "core.depth=2", "core.num_heads=3"]
VISION = ["domain=vision", "model.dim=12", "model.depth=2", "model.num_heads=3", "model.qk_norm=true", "logger=csv"]


def plan(*words: str) -> TransferConfig:
    return to_dataclass(TransferConfig, compose("transfer", nest_run_settings("transfer", [*CORE, *words])))


def test_of_another_domain_the_core_alone_is_taken(tmp_path):
    """A text of 33 kinds of token has an embedding of the very name and shape of the residues'."""
    torch.manual_seed(0)
    spec = {"context": 13, "vocab_size": 33, "ngram_orders": [], "ngram_text": ""}
    text = Text(TextConfig(dim=12, num_heads=3), PositionConfig(), spec)
    write_config(tmp_path, compose("config", ["domain=text"]), spec)
    write_weights(tmp_path, text.state_dict())
    residues = Residues(ResiduesConfig(dim=12, num_heads=3), PositionConfig(), {})
    before = {name: weight.clone() for name, weight in residues.state_dict().items()}
    assert before["embed.weight"].shape == text.embed.weight.shape
    said = load_init_weights(residues, "domains.protein.masked", tmp_path)
    assert said.startswith("taken: transformer.blocks, transformer.norm; anew: bias, contact, dense, embed, norm")
    for name, weight in residues.state_dict().items():
        if name.startswith(("transformer.blocks.", "transformer.norm.")):
            assert torch.equal(weight, text.state_dict()[name])
        else:
            assert torch.equal(weight, before[name])


def test_a_frozen_core_keeps_its_matrices_bit_for_bit_and_resumes(tmp_path, same_weights):
    settings = [*VISION, "optimizer=muon", "optimizer.schedule=constant", "optimizer.warmup=0", "frozen=true"]
    config = compose("config", settings)
    data = make_data(config)
    torch.manual_seed(5)
    first = make_adapter(config, data.spec())
    write_config(tmp_path / "first", config, data.spec())
    write_weights(tmp_path / "first", first.state_dict())
    with make_progress() as progress:
        for name, steps in (("whole", 4), ("halves", 2), ("halves", 4)):
            words = [f"trainer.max_steps={steps}", "trainer.val_check_interval=2", f"run={tmp_path / name}"]
            train(compose("config", [*settings, f"init={tmp_path / 'first'}", *words]), tmp_path / name, progress)
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    whole = load_file(tmp_path / "whole" / "weights.safetensors")
    for name, weight in first.named_parameters():
        fixed = name.startswith("transformer.blocks.") and "norm" not in name
        assert torch.equal(whole[name], weight) is fixed, name


def test_the_runs_that_there_are(tmp_path):
    chosen = plan("pretrain=[vision]", "finetune=[vision]", "seeds=2", "scale=0.1", f"output={tmp_path}")
    first = transfer.pretraining_jobs(chosen)
    jobs = transfer.finetuning_jobs(chosen, first)
    assert [(one["domain"], one["value"], one["seed"]) for one in jobs] == [
        ("vision", value, seed) for value in ("scratch", "random", "vision tuned", "vision frozen") for seed in (0, 1)
    ]
    scratch = [one["key"] for one in jobs if one["value"] == "scratch"]
    assert scratch == [one["key"] for one in first]  # it is the same run, and trained once
    assert len({one["key"] for one in jobs}) == len(jobs)
    for one in jobs[1::2]:
        config = compose("config", one["overrides"])
        core = {"dim": 12, "depth": 2, "num_heads": 3, "qk_norm": True, "mlp_ratio": 2}
        assert {key: config.model[key] for key in core} == core
        assert config.trainer.max_steps == 190
        assert config.frozen is (one["value"] in ("random", "vision frozen"))
        source = str(tmp_path / "runs" / first[one["seed"]]["key"] / "core") if "vision " in one["value"] else None
        assert config.init == source


def test_a_core_is_trained_and_put_under_a_new_adapter(tmp_path, monkeypatch):
    """The real runs, but in this process; even in its own domain a core comes without its adapter."""

    def launch(output, jobs):
        for one in jobs:
            home = output / "runs" / one["key"]
            if not (home / "result.json").is_file():
                write_json(home / "result.json", job.train_and_evaluate(home, one))

    monkeypatch.setattr(transfer, "launch_jobs", launch)
    words = ["pretrain=[vision]", "finetune=[vision]", "seeds=1", "scale=0.002", "data.batch_size=7"]
    transfer.run(compose("transfer", nest_run_settings("transfer", [*CORE, *words, f"output={tmp_path}"])))
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["value"]: row for row in results["rows"]}
    weights = {value: load_file(f"{row['run']}/weights.safetensors") for value, row in rows.items()}
    assert list(rows) == ["scratch", "random", "vision tuned", "vision frozen"]
    assert all(row["metric"] == "error" and row["steps"] == 4 for row in rows.values())
    qkv, head = "transformer.blocks.1.mixer.qkv.weight", "classifier.weight"
    assert torch.equal(weights["vision frozen"][qkv], weights["scratch"][qkv])
    assert not torch.equal(weights["vision tuned"][qkv], weights["scratch"][qkv])
    torch.testing.assert_close(weights["vision tuned"][head], weights["scratch"][head], rtol=0, atol=0.1)
    assert torch.equal(load_file(f"{rows['scratch']['run']}/core/weights.safetensors")[qkv], weights["scratch"][qkv])
    assert [line["mode"] for line in results["effects"]] == ["scratch", "random", "tuned", "frozen"]
    assert (tmp_path / "results.csv").read_text().count("\n") == 5


def rows(value: str, scores: list[float], **more: Any) -> list[dict[str, Any]]:
    costs = {"steps": 7, "flops": 1e9, "seconds": 2.0, "peak_memory": 11, "tokens_per_second": 13.0, "parameters": 17}
    what = {"domain": "text", "value": value, "metric": "bits", "lower_is_better": True, "run": "", **costs, **more}
    return [{**what, "seed": seed, "score": score} for seed, score in enumerate(scores)]


def test_the_table_by_hand():
    chosen = plan("pretrain=[vision]", "finetune=[text]")
    runs = rows("scratch", [2.0, 2.1, 1.9]) + rows("random", [3.0, 2.0, 2.5]) + rows("vision tuned", [1.8, 1.9, 1.69])
    runs += [
        {"domain": "text", "value": "vision frozen", "seed": seed, "error": "no memory", "run": ""} for seed in range(3)
    ]
    results = transfer.collect_results(chosen, runs)
    tuned = next(line for line in results["effects"] if line["value"] == "vision tuned")
    assert (tuned["pretrain"], tuned["mode"]) == ("vision", Mode.tuned)
    assert tuned["percent"] == pytest.approx(100 * (0.2 + 0.2 + 0.21) / 3 / 2)
    assert (tuned["percent_low"], tuned["percent_high"]) == pytest.approx((10.0, 10.5))  # from least to largest
    assert transfer.verdicts(results["effects"]) == [
        "text: vision tuned is better than scratch in bits: +10.2 % (+10.0 … +10.5; 3 seeds)"
    ]
    said = shown(results, 100)
    assert "2 ± 0.1" in said
    assert "+10.2 % *" in said
    assert "+10.0 … +10.5" in said
    assert "-25.0 %" in said
    assert "-50.0 … +5.0" in said
    assert "text vision frozen seed 2 failed: no memory" in said


def shown(results: dict[str, Any], width: int) -> str:
    console = Console(file=StringIO(), width=width)
    transfer.print_results(results, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_score_of_0_or_no_number_is_told():
    chosen = plan("pretrain=[vision]", "finetune=[text]")
    results = transfer.collect_results(chosen, rows("scratch", [0.0, 0.0]) + rows("random", [-3.0, -3.5]))
    assert transfer.verdicts(results["effects"]) == [
        "text: random is better than scratch in bits: +3.25 from 0 (+3 … +3.5; 2 seeds)"
    ]
    assert "+3.25 from 0 *" in shown(results, 60)
    assert "+3 … +3.5" in shown(results, 60)
    results = transfer.collect_results(chosen, rows("scratch", [1.0, 2.0]) + rows("random", [math.nan, 2.0]))
    assert "no number" in shown(results, 60)
    for found in (shown(results, 60), *transfer.verdicts(results["effects"])):
        assert "nan %" not in found


def test_nothing_sure_is_said_so():
    results = transfer.collect_results(plan("pretrain=[vision]", "finetune=[text]"), rows("scratch", [1.0, 2.0]))
    assert transfer.verdicts(results["effects"]) == [
        "no effect is sure: no Student's interval excludes zero; more seeds would narrow them"
    ]


def test_the_report_says_what_the_table_says(tmp_path, embedded):
    """The cells of the matrices, what is escaped, and runs that failed."""
    data = report(tmp_path, embedded)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data["domains"] == ["text", "rl"]
    modes = {matrix["mode"]: matrix["cells"] for matrix in data["matrices"]}
    assert [*modes] == ["tuned", "frozen", "random"]
    tuned, elsewhere = modes["tuned"]
    assert (tuned["core"], tuned["domain"], tuned["sure"]) == ("vision", "text", True)
    assert (tuned["effect"], tuned["interval"]) == ("+10.2 %", "+10.0 … +10.5")
    assert tuned["percent"] == pytest.approx(10.1667, rel=1e-4)
    assert (elsewhere["effect"], elsewhere["percent"]) == ("failed", None)
    assert [cell["effect"] for cell in modes["frozen"]] == ["failed", "failed"]
    assert modes["random"][1]["effect"] == "scratch\nfailed"
    assert [cell["core"] for cell in modes["random"]] == ["new", "new"]
    assert EVIL not in page
    assert page.count("&lt;/script&gt;&lt;b&gt;") == 3 + 3 + 3 + 3  # the seeds of three cells of rl, and of one of text
    assert "dim=12" in page
    assert '<th scope="row">vision, scratch, seed 2</th><td>0.125</td>' in page
    assert page.count('<th scope="row">vision tuned') == 1


EVIL = "</script><b>"


def report(folder: Path, embedded) -> dict[str, Any]:
    """Writes the report of made-up runs; returns the data in it."""
    chosen = plan("pretrain=[vision]", "finetune=[text,rl]", f"output={folder}")
    runs = rows("scratch", [2.0, 2.1, 1.9]) + rows("random", [3.0, 2.0, 2.5]) + rows("vision tuned", [1.8, 1.9, 1.69])
    runs += [{"domain": "text", "value": "vision frozen", "seed": seed, "error": EVIL, "run": ""} for seed in range(3)]
    runs += [row | {"domain": "vision"} for row in rows("scratch", [0.5, 0.25, 0.125])]  # where the core comes from
    runs += [row | {"domain": "rl"} for row in rows("random", [3.0, 2.0, 2.5])]
    runs += [
        {"domain": "rl", "value": value, "seed": seed, "error": EVIL, "run": ""}
        for value in ("scratch", "vision tuned", "vision frozen")
        for seed in range(3)
    ]
    write_transfer(folder / "report.html", transfer.collect_results(chosen, runs))
    page = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(embedded(page))


@pytest.mark.plain
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_in_a_browser(opened, tmp_path, scheme, embedded):
    """Cells say what the data say, in a colour by sign and size on which text can be read; it fits a phone."""
    data = report(tmp_path, embedded)
    for page in opened(tmp_path / "report.html", color_scheme=scheme):
        for number, cells in enumerate(matrix["cells"] for matrix in data["matrices"]):
            chart = page.locator(f"[data-matrix='{number}'] svg[role=img]")
            said = " ".join(chart.locator("[aria-label=text] text").all_text_contents())
            effects = [cell["effect"].replace("\n", "") for cell in cells]  # a text of two lines has no break in it
            assert [said.count(effect) for effect in effects] == [effects.count(effect) for effect in effects]
            assert said.count("*") == sum(cell["sure"] for cell in cells)
            for cell in cells:
                name = f"{cell['core']} to {cell['domain']} {cell['effect']}".replace("\n", " ")
                assert name in chart.get_attribute("aria-label")

        def drawn(number: int, page=page) -> tuple[str, float]:
            cell = page.locator(f"[data-matrix='{number}'] [aria-label=cell] rect").first
            return cell.get_attribute("fill"), float(cell.get_attribute("fill-opacity"))

        better, worse = drawn(0), drawn(2)
        assert (better[0], worse[0]) == ("var(--blue)", "var(--orange)")
        assert better[1] == pytest.approx(worse[1] * (10.1667 / 25) ** 0.5, rel=1e-3)
        for name, opacity in (better, worse):
            assert contrast(page, name, opacity) > 4.5
        page.locator("#common").focus()
        page.keyboard.press("Space")
        assert page.locator("#common").is_checked() is False
        assert drawn(0) == better  # the only column with effects
        page.get_by_text("Every run", exact=True).click()


def contrast(page, name: str, opacity: float) -> float:
    """Of text on a colour of that opacity, as WCAG 2 defines it."""
    paint, ground, ink = (
        page.evaluate(
            """name => {
                const pen = document.createElement("canvas").getContext("2d");
                pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
                pen.fillRect(0, 0, 1, 1);
                return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
            }""",
            variable,
        )
        for variable in (name.removeprefix("var(").removesuffix(")"), "--page", "--ink")
    )

    def luminance(colour) -> float:
        parts = np.array(colour) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    below = luminance(opacity * np.array(paint) + (1 - opacity) * np.array(ground))
    light, dark = sorted((luminance(ink), below), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain=[visoin]"], r"pretrain=\[visoin\] must be one or more of joint, protein, .*vision, each once"),
        (["finetune=[rl,rl]"], r"finetune=\[rl, rl\] must be one or more"),
        (["modes=[tuned,frozen]"], r"modes=\[tuned, frozen\] must hold scratch and one other: scratch, random"),
        (["seeds=0"], "seeds=0 must be at least 1"),
        (["modes=[scratch,tuend]"], "expected one of"),
        (["core.dimm=3"], r"core\.dimm is no setting; did you mean core\.dim\?"),
    ],
)
def test_what_cannot_be(words, message):
    with pytest.raises(ValueError, match=message):
        transfer.check_config(plan(*words))
