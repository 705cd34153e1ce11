"""Scale plans without a device, against closed forms and measured memory."""

import json

import pytest

from experiments.compose import compose, nest_run_settings
from experiments.plan import make_scale_plan
from experiments.plan import run as attend_plan

TEXT = ["domain=text", "model.dim=24", "model.depth=3", "data.context=31", "data.batch_size=8", "data.ngram_lookup=[]"]


def asked(*words: str):
    return compose("plan", nest_run_settings("plan", list(words)))


def test_states_are_those_of_the_closed_form():
    found = make_scale_plan(compose("config", [*TEXT, "optimizer=adamw"]), devices=1)
    assert found["weights"] == found["gradients"] == 4 * found["parameters"]
    assert found["optimizer"] == pytest.approx(2 * found["weights"], rel=0.01)  # and a count for each tensor
    assert found["peak"] > found["weights"] + found["gradients"] + found["optimizer"]


@pytest.mark.parametrize(("devices", "rows"), [(4, 1), (8, 2)])
def test_shards_are_equal_shares(devices, rows):
    words = [*TEXT, "optimizer=adamw", "trainer.strategy=shard", f"trainer.tensor_parallel={rows}"]
    alone, shared = (make_scale_plan(compose("config", words), n) for n in (1 if rows == 1 else 2, devices))
    assert shared["batch_size"] == 8
    assert shared["samples_per_device"] == 8 // (devices // rows)
    assert shared["weights"] == pytest.approx(alone["weights"] / 4, rel=0.1)
    assert shared["flops_per_device"] == pytest.approx(alone["flops_per_device"] / 4, rel=1e-6)


def test_heads_and_features_are_divided():
    words = [*TEXT, "optimizer=adamw", "trainer.strategy=shard"]
    whole, half = (make_scale_plan(compose("config", [*words, f"trainer.tensor_parallel={n}"]), n) for n in (1, 2))
    assert half["flops_per_device"] < 0.7 * whole["flops_per_device"]
    assert half["activations"] < whole["activations"]


def test_recomputation_holds_less_and_works_more():
    kept, again = (
        make_scale_plan(compose("config", [*TEXT, f"trainer.activation_checkpointing={w}"]), 1)
        for w in ("false", "true")
    )
    assert again["activations"] < 0.7 * kept["activations"]
    assert 1.1 < again["flops_per_device"] / kept["flops_per_device"] < 1.4


@pytest.mark.parametrize("domain", ["vision", "protein", "rl"])
def test_every_domain_can_be_planned(domain):
    found = make_scale_plan(compose("config", [f"domain={domain}"]), devices=1)
    assert found["flops_per_device"] > 6 * found["parameters"]
    assert found["activations"] > 0


def test_long_proteins_are_planned_from_short_ones():
    words = ["domain=protein", "data.batch_size=1"]
    short, long = (make_scale_plan(compose("config", words), 1, length) for length in (67, 211))
    assert (short["tokens_per_sample"], long["tokens_per_sample"]) == (67, 211)
    assert 8 < long["activations"] / short["activations"] < 12  # pairs grow as the square: 9.9


@pytest.mark.parametrize(("words", "verdict"), [(["devices=16"], True), (["devices=1", "device=l4"], False)])
def test_the_command_says_whether_it_fits_and_why(tmp_path, capsys, words, verdict):
    model = ["model.dim=2048", "model.depth=32", "model.num_heads=16", "optimizer=adamw", "data.context=128"]
    attend_plan(asked("domain=text", *model, *words, f"output={tmp_path}"))
    told = json.loads((tmp_path / "plan.json").read_text())
    assert told["fits"] is verdict
    shown = " ".join(capsys.readouterr().out.split())
    assert (" fits: " if verdict else "does not fit: ") in f" {shown}"
    assert verdict or "optimizer" in told["reason"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["device=h1000"], "device=h1000 is unknown; possible: h200"),
        (["mfu=40"], r"mfu=40.0 in \(0, 1\]"),
        (["domain=joint"], "plan its domains one by one"),
        (["devices=3", "trainer=tp_fsdp"], "must divide the 3 devices"),
    ],
)
def test_what_cannot_be_planned(words, expected):
    with pytest.raises(ValueError, match=expected):
        attend_plan(asked(*([] if "domain=joint" in words else ["domain=text"]), *words))
