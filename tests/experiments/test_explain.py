"""The attention explorer: its elements are the tokens, its figures are correct, and its page works in a browser."""

import base64
import json
import re
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.masks import Dense
from core.probe import Probe
from domains.adapter import DomainAdapter
from domains.explanation import Explanation
from domains.protein.chain import to_letters
from experiments.compose import compose
from experiments.explain import ablate_elements, ablate_heads, explain_example, predict, removal_effects, run
from experiments.report.explorer import write_explorer
from experiments.runs import make_adapter, make_data, write_config, write_weights

pytestmark = pytest.mark.filterwarnings("ignore::domains.data_warnings.DataWarning")  # of the second chain

SEQUENCE = "MKTAYIAKQRQ"
TEXT = "ab;</script> é"  # 15 bytes
SPECS = {
    "vision": {"classes": [*"abc"], "channels": 1, "size": [4, 6], "mean": [0.5], "std": [0.25]},
    "protein": {"alphabet": "ACDEFGHIKLMNPQRSTVWY", "max_length": 17},
    "text": {
        "context": 17,
        "vocab_size": 256,
        "tokenizer": {"kind": "bytes"},
        "ngram_orders": [2],
        "ngram_text": "abab",
    },
    "rl": {
        "env_id": "CartPole-v1",
        "max_episode_steps": 500,
        "state_shape": 4,
        "num_actions": 2,
        "context": 5,
        "mean": [0.0] * 4,
        "std": [1.0] * 4,
        "best_return": 19.0,
        "return_scale": 19.0,
    },
}
SETTINGS = {  # widths that differ from each other and from the lengths
    "vision": ["model.class_token=true", "model.reg_tokens=1", "model.depth=2"],
    "protein": ["model.pair_dim=6", "model.depth=2"],
    "text": ["model.depth=2"],
    "rl": ["model.depth=2"],
}


def untrained(domain: str, *more: str):
    """The configuration and a small model of it whose every part matters."""
    config = compose("config", [f"domain={domain}", "model.dim=24", "model.num_heads=3", *SETTINGS[domain], *more])
    torch.manual_seed(0)
    adapter = make_adapter(config, SPECS[domain])
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return config, adapter.eval()


def source(domain: str, folder: Path) -> str:
    if domain == "vision":
        pixels = np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)
        Image.fromarray(pixels).save(folder / "grey.png")
        return str(folder / "grey.png")
    if domain == "protein":
        (folder / "chain.fasta").write_text(f">one\n{SEQUENCE}\n>two\nGG\n")
        return str(folder / "chain.fasta")
    return {"rl": "CartPole-v1", "text": TEXT}[domain]


@pytest.fixture(params=SPECS)
def domain(request, tmp_path) -> tuple[str, DomainAdapter, Explanation]:
    config, adapter = untrained(request.param)
    (explanation,) = import_module(f"{config.domain.package}.explain").explanations(
        adapter, source(request.param, tmp_path)
    )
    return request.param, adapter, explanation


@torch.inference_mode()
def test_the_elements_are_the_tokens_in_their_order(domain):
    name, adapter, explanation = domain
    labels = [element.label for element in explanation.elements]
    assert len(labels) == adapter.tokens(explanation.batch).x.shape[1]
    if name == "vision":
        assert labels == ["class", "register 1", "1,1", "1,2", "1,3", "2,1", "2,2", "2,3"]
        assert explanation.elements[6].place == pytest.approx((1 / 3, 1 / 2, 1 / 3, 1 / 2))
        changed, where = {"images": explanation.batch["images"].clone()}, [6]
        changed["images"][..., 2:, 2:4] += 0.1  # the patch in row 2, column 2
    elif name == "protein":
        assert "".join(labels) == SEQUENCE
        return  # a residue's token knows of its neighbours
    elif name == "rl":
        assert labels == [*"Rsa"] * 5
        assert [element.place for element in explanation.elements[::3]] == [(0,), (1,), (2,), (3,), (4,)]
        assert len(explanation.pictures) in (0, 5)
        changed, where = explanation.batch | {"actions": 1 - explanation.batch["actions"]}, [2, 5, 8, 11, 14]
    else:
        assert labels == [*"ab;</script>␣", "‹195›", "‹169›"]
        changed, where = explanation.batch | {"tokens": explanation.batch["tokens"].clone()}, [7]
        changed["tokens"][0, 7] += 1
    moved = (adapter.tokens(changed).x != adapter.tokens(explanation.batch).x).any(-1)[0]
    assert moved.nonzero()[:, 0].tolist() == where


@torch.inference_mode()
def test_removal_is_what_it_says(domain):
    _, adapter, explanation = domain
    whole, L = predict(adapter, explanation), len(explanation.elements)
    torch.testing.assert_close(whole.sum(-1), torch.ones(whole.shape[:-1]))
    crippled = deepcopy(adapter)
    crippled.transformer.blocks[1].mixer.out.weight[:, 8:16] = 0  # what head 1 of 3 says is not listened to
    (without,) = ablate_heads(adapter, explanation, 1, torch.tensor([1]))
    torch.testing.assert_close(without, predict(crippled, explanation)[0], rtol=1e-4, atol=1e-5)
    table = torch.ones(L, L, dtype=torch.bool)
    table[:, 3] = torch.arange(L) == 3
    hidden = predict(adapter, explanation, mask=Dense(table[None, None]))
    torch.testing.assert_close(ablate_elements(adapter, explanation, torch.tensor([3])), hidden, rtol=1e-4, atol=1e-5)
    (effect,) = removal_effects(whole, 1, lambda _: hidden)
    assert effect.item() == pytest.approx((hidden - whole).abs().sum().item() / 2 / whole.shape[1], rel=1e-4)
    assert effect > 1e-5


@torch.inference_mode()
def test_what_the_page_is_given(domain):
    name, adapter, explanation = domain
    found, L = json.loads(json.dumps(explain_example(adapter, explanation), allow_nan=False)), len(explanation.elements)
    assert [(m["layer"], m["head"]) for m in found["maps"]] == [
        (layer, head) for layer in (1, 2) for head in ("1", "2", "3", "mean", "rollout")
    ]
    probe = Probe("1.attention")
    adapter(explanation.batch, probe=probe)
    second = found["maps"][6]  # layer 2, head 2
    assert np.abs(decoded(second) - probe["1.attention"][0, 1].numpy()).max() <= second["top"] / 510 + 1e-6
    mean = decoded(found["maps"][8])
    assert np.abs(mean - probe["1.attention"][0].mean(0).numpy()).max() <= found["maps"][8]["top"] / 510 + 1e-6
    assert np.abs(decoded(found["maps"][9]).sum(1) - 1).max() < 0.1  # rollout: rows sum to 1
    others = (mean.sum(0) - mean.diagonal()) / (L - 1)
    assert np.abs(others - found["maps"][8]["received"]).max() < 0.01
    assert len(found["effects"]) == L
    if name in ("rl", "text"):  # nobody sees the last token of a causal model
        assert found["maps"][0]["received"][-1] == 0
        assert found["effects"][-1] < 1e-6  # of probabilities in float32, from batches of different sizes


def decoded(found: dict) -> np.ndarray:
    weights = np.frombuffer(base64.b64decode(found["weights"]), np.uint8)
    return weights.reshape(2 * [round(len(weights) ** 0.5)]) * found["top"] / 255


HELD_OUT = {"rl": ["data.episodes=7"]}


@pytest.mark.parametrize("domain", SPECS)
def test_an_example_is_what_the_run_was_not_trained_on(domain, tmp_path):
    config = compose("config", [f"domain={domain}", "model.dim=24", "model.num_heads=3", *HELD_OUT.get(domain, [])])
    data: Any = make_data(config)
    adapter = make_adapter(config, data.spec()).eval()
    explanation = import_module(f"{config.domain.package}.explain").example(adapter, data)
    batch, labels = data.batch("test", [0]), "".join(element.label for element in explanation.elements)
    if domain == "vision":
        assert torch.equal(explanation.batch["images"], batch["images"])
    elif domain == "protein":
        chain = next(chain for chain in data.splits["test"] if len(chain) <= 128)
        assert (explanation.name, labels) == (chain.name, to_letters(chain.sequence))
        assert explanation.name not in {chain.name for chain in data.splits["train"]}
    elif domain == "rl":
        assert explanation.name == "CartPole-v1, seed 1000000"
        assert 1_000_000 not in data.trajectories.seeds
    else:
        begin, end = data.bounds["test"]
        assert begin <= data.first_document_start("test") < end - 128
        assert data.first_document_start("test") in data.corpus.document_starts
        text = data.corpus.text(data.first_document_start("test"), data.first_document_start("test") + 128)
        assert labels == text.replace(" ", "␣").replace("\n", "↵")


def test_numbered_and_continuous_actions_are_distributions():
    _, adapter = untrained("rl")
    explain = import_module("domains.rl.explain")
    logits = torch.tensor([[[1.0, 3.0]]]).log()
    torch.testing.assert_close(explain.distribution(adapter, logits), torch.tensor([[[0.25, 0.75]]]))
    spec = {**SPECS["rl"], "low": [-1.0, 0.0], "high": [1.0, 4.0]}
    del spec["num_actions"]
    config, _ = untrained("rl")
    adapter = make_adapter(config, spec)
    parts = explain.distribution(adapter, torch.tensor([[[0.5, 1.0]]]))  # (1, K·A, 2)
    torch.testing.assert_close(parts, torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]))


def test_a_folder_of_many_images_is_cut_with_a_word(tmp_path):
    config, adapter = untrained("vision")
    for name in "edcba":
        Image.linear_gradient("L").resize((6, 4)).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match="the first 4 of the 5 images in .* are shown"):
        found = import_module(f"{config.domain.package}.explain").explanations(adapter, str(tmp_path))
    assert [explanation.name for explanation in found] == ["a.png", "b.png", "c.png", "d.png"]


def test_no_label_ends_the_script(tmp_path, embedded):
    label = "</script><b>&\u2028\u2029'\"é"
    found = {"run": label, "domain": label, "mixer": "y", "examples": [label]}
    data = {"runs": [found], "date": "z", "versions": {"torch": "2"}}
    write_explorer(tmp_path / "page.html", data)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert label not in page
    assert "\u2028" not in embedded(page)
    assert json.loads(embedded(page)) == data


@pytest.fixture
def saved(tmp_path):
    """Save an untrained run; return the arguments of `attend explain` for it."""

    def save(domain: str, *more: str, **changes: str | None):
        config, adapter = untrained(domain, *more)
        write_config(tmp_path / "run", config, SPECS[domain])
        write_weights(tmp_path / "run", adapter.state_dict())
        values = {"run": str(tmp_path / "run"), "input": source(domain, tmp_path), **changes}
        return compose("explain", [f"{key}={'null' if value is None else value}" for key, value in values.items()])

    return save


@pytest.mark.parametrize(
    ("domain", "more", "changes", "part"),
    [
        ("text", ["model.mixer=linear"], {}, "model.mixer=linear has no attention maps to explain; possible: softmax"),
        ("text", [], {"input": "a"}, "has 1 tokens; give at least 2"),
        ("text", ["model.mixer=linear"], {"input": None}, "model.mixer=linear has no attention maps"),
        ("vision", [], {"input": "nowhere.png"}, "nowhere.png does not exist"),
        ("rl", [], {"input": "CartPole-v9"}, "this run was trained on CartPole-v1: give input=CartPole-v1"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(saved, tmp_path, domain, more, changes, part):
    config = saved(domain, *more, **changes)
    with pytest.raises(ValueError, match=re.escape(part)) as error:
        run(config)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.rglob("explain*"))


@pytest.mark.plain
@pytest.mark.parametrize("domain", SPECS)
def test_the_page_in_a_browser(opened, saved, tmp_path, domain, embedded):
    """A click, the arrows and the selects show the weights that lie in the page; it fits a phone, without an error."""
    run(saved(domain))
    path = tmp_path / "run" / "explain" / "explain.html"
    (explanation,) = json.loads(embedded(path.read_text(encoding="utf-8")))["runs"][0]["examples"]
    L = len(explanation["elements"])

    def shown(page, panel: str) -> list[float]:
        return page.eval_on_selector_all(f"#{panel} .cell", "cells => cells.map(c => Number(c.dataset.weight))")

    def check(page, element: int, layer: int, head: str) -> None:
        (found,) = [m for m in explanation["maps"] if (m["layer"], m["head"]) == (layer, head)]
        assert shown(page, "to") == pytest.approx(decoded(found)[element], abs=1e-4)
        assert shown(page, "by") == pytest.approx(decoded(found)[:, element], abs=1e-4)
        assert page.locator("#to [aria-selected=true]").get_attribute("id") == f"to-{element}"
        names = {element["note"].split("; ")[0] for element in explanation["elements"]}
        most = (page.locator("#to-most").text_content() or "").removeprefix("Most: ").split(" · ")
        assert names.issuperset(name.rpartition(", ")[0] for name in most)

    for page in opened(path):
        check(page, L // 2, 2, "mean")
        page.locator(f"#by-{L - 2}").click()
        check(page, L - 2, 2, "mean")
        page.locator("#to").focus()
        page.keyboard.press("ArrowRight")
        check(page, L - 1, 2, "mean")
        page.keyboard.press("ArrowRight")
        check(page, 0, 2, "mean")
        page.locator("#layer").select_option("1")
        page.locator("#head").select_option("3")
        check(page, 0, 1, "3")
        page.locator("#head").select_option("rollout")
        check(page, 0, 1, "rollout")
        page.locator("#to-2").click()
        check(page, 2, 1, "rollout")
        assert page.locator("svg").count() == 7
        assert not page.locator("img:not([alt]), img[alt=''][src]").count()
