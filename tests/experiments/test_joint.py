"""One core for several domains: it is shared, trains as in each domain alone, and can be transferred."""

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from domains.adapter import mean_loss, mean_metrics
from domains.joint.adapter import Adapter
from experiments.compose import compose
from experiments.evaluate import evaluate
from experiments.predict import run as predict
from experiments.runs import load_run, make_adapter, make_data, write_config, write_weights
from experiments.train import train
from experiments.training.init_from import load_init_weights
from experiments.training.nonfinite import find_nonfinite_source
from experiments.training.progress import make_progress

CORE = ["model.dim=14", "model.depth=2", "model.num_heads=7"]
SMALL = ["data.rl.episodes=11", "data.text.ngram_lookup=[]", "data.text.context=23"]
BATCHES = ["data.vision.batch_size=5", "data.protein.batch_size=2", "data.rl.batch_size=3", "data.text.batch_size=7"]
TINY = ["domain=joint", *CORE, *SMALL, *BATCHES, "data.weights.text=0.5", "logger=csv"]
NAMES = ["vision", "protein", "rl", "text"]


def parts(predictions) -> list[Tensor]:
    return [part for part in ([predictions] if isinstance(predictions, Tensor) else predictions) if part is not None]


@pytest.fixture(scope="module")
def joint():
    """A configuration of all four domains, their data, the model, and one batch."""
    torch.manual_seed(0)
    config = compose("config", TINY)
    data = make_data(config)
    return config, data, make_adapter(config, data.spec()), data.batch("train", [0, 1])


def test_the_core_is_one_and_each_of_its_weights_has_one_name(joint):
    _, _, adapter, _ = joint
    names = list(adapter.state_dict())
    assert sum("transformer.blocks.0.mixer.qkv.weight" in name for name in names) == 1
    assert {name.split(".")[1] for name in names if name.startswith("parts.")} == set(NAMES)
    for _, part in adapter.adapters():
        assert part.transformer.blocks is adapter.transformer.blocks
        assert part.transformer.norm is adapter.transformer.norm
    twin = copy.deepcopy(adapter)
    assert twin.parts["rl"].transformer.blocks is twin.transformer.blocks is not adapter.transformer.blocks


@pytest.mark.parametrize("name", NAMES)
def test_under_each_adapter_it_is_that_domains_model(joint, name):
    config, data, adapter, batch = joint
    chosen = [f"model.{key}={config.model[key]}" for key in ("dim", "depth", "num_heads", "mlp_ratio", "qk_norm")]
    plain = {"text": ["model.activation=gelu", "model.norm=layer", "model.linear_bias=true", "model.zero_init=false"]}
    alone = make_adapter(compose("config", [f"domain={name}", *chosen, *plain.get(name, [])]), data.parts[name].spec())
    state = adapter.state_dict()
    core = {key: weight for key, weight in state.items() if key.startswith("transformer.")}
    own = {key.removeprefix(f"parts.{name}."): weight for key, weight in state.items() if key.startswith("parts.")}
    missed = alone.load_state_dict({key: weight for key, weight in (core | own).items() if key in alone.state_dict()})
    assert not missed.missing_keys
    with torch.no_grad():
        for ours, theirs in zip(parts(adapter.eval()(batch)[name]), parts(alone.eval()(batch[name])), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_window_is_that_of_the_core_in_every_domain():
    """Also for proteins, whose tokens still depend on neighbours."""
    model = compose("config", [*TINY, "model.mixer=window", "model.window=11"]).model
    assert {model[name].window for name in NAMES} == {11}
    assert model.protein.conv_radius == 7


def test_the_loss_is_the_weighted_sum_and_every_weight_learns(joint):
    _, _, adapter, batch = joint
    adapter.train().zero_grad()
    loss = mean_loss(adapter.loss(adapter(batch), batch))
    each = {name: mean_loss(part.loss(part(batch[name]), batch[name])) for name, part in adapter.adapters()}
    torch.testing.assert_close(loss, each["vision"] + each["protein"] + each["rl"] + 0.5 * each["text"])
    loss.backward()
    assert not [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    weight = adapter.transformer.blocks[0].mixer.qkv.weight
    alone = [torch.autograd.grad(value, weight)[0] * (0.5 if name == "text" else 1) for name, value in each.items()]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.stack(alone).sum(0))


def test_what_is_no_number_is_named_with_its_domain(joint):
    _, _, adapter, batch = joint
    spoilt = {**batch, "vision": {**batch["vision"], "images": batch["vision"]["images"] / 0}}
    assert find_nonfinite_source(adapter, spoilt) == "the batch's vision.images are not finite"
    assert find_nonfinite_source(adapter, batch) == "all outputs are finite"


def test_a_domain_that_is_at_its_end_is_left_out(joint):
    _, _, adapter, batch = joint
    some = batch | {"protein": None, "text": None}
    assert set(adapter(some)) == {"vision", "rl"}
    assert {name.split("/")[0] for name in adapter.metrics(adapter(some), some)} == {"vision", "rl"}


@pytest.mark.parametrize("name", ["vision", "rl"])
def test_the_core_goes_to_a_domain_and_comes_from_one(name, joint, tmp_path):
    config, data, adapter, _ = joint
    write_config(tmp_path / "joint", config, data.spec())
    write_weights(tmp_path / "joint", adapter.state_dict())
    for key, weight in load_run(tmp_path / "joint")[1].state_dict().items():
        assert torch.equal(weight.cpu(), adapter.state_dict()[key])
    chosen = [f"model.{key}={config.model[key]}" for key in ("dim", "depth", "num_heads", "mlp_ratio", "qk_norm")]
    plain = compose("config", [f"domain={name}", *chosen])
    one = make_adapter(plain, data.parts[name].spec())
    said = load_init_weights(one, f"domains.{name}", tmp_path / "joint")
    assert said.startswith("taken: transformer.blocks, transformer.norm; anew:")
    assert torch.equal(one.state_dict()["transformer.norm.weight"], adapter.state_dict()["transformer.norm.weight"])
    write_config(tmp_path / name, plain, data.parts[name].spec())
    write_weights(tmp_path / name, one.state_dict())
    again = make_adapter(config, data.spec())
    assert load_init_weights(again, "domains.joint", tmp_path / name).startswith("taken: transformer; anew: parts")
    for (key, theirs), ours in zip(
        one.transformer.blocks.named_parameters(), again.transformer.blocks.parameters(), strict=True
    ):
        assert torch.equal(theirs, ours), key


def test_a_run_resumes_exactly_and_measures_every_domain_as_alone(tmp_path):
    """Of different numbers of validation batches; nothing here depends on the length of the run."""
    settings = [*TINY, "data.weights.protein=0", "optimizer.schedule=constant", "optimizer.warmup=0"]
    summaries = {}
    with make_progress() as progress:
        for name, steps in (("whole", 4), ("halves", 2), ("halves", 4)):
            words = [*settings, f"trainer.max_steps={steps}", "trainer.val_check_interval=2", f"run={tmp_path / name}"]
            summaries[name] = train(compose("config", words), tmp_path / name, progress)
    whole, halves = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "halves"))
    assert all(torch.equal(weight, halves[name]) for name, weight in whole.items())
    assert summaries["whole"]["tokens_per_step"] == 5 * 16 + 3 * 30 + 7 * 23
    config, adapter = load_run(tmp_path / "whole")
    assert isinstance(adapter, Adapter)
    data: Any = make_data(config)
    for name, part in adapter.adapters():
        for what, value in mean_metrics(part, data.parts[name].eval_dataloader("val")).items():
            assert summaries["whole"]["val"][f"{name}/{what}"] == pytest.approx(value, rel=1e-4)


def test_evaluation_is_that_of_each_domain_and_prediction_is_refused(tmp_path):
    settings = [*TINY, "data.weights.protein=0", "data.weights.text=0"]
    torch.manual_seed(0)
    config = compose("config", settings)
    data: Any = make_data(config)
    write_config(tmp_path, config, data.spec())
    write_weights(tmp_path, make_adapter(config, data.spec()).state_dict())
    found = evaluate(tmp_path, tmp_path / "evaluate")
    assert found.scores[0].metric == "vision: accuracy"
    assert [score.metric.split(":")[0] for score in found.scores] == ["vision", "rl", "rl", "rl"]
    assert found.metrics["vision"]["images"] == data.parts["vision"].size("test")
    assert (tmp_path / "evaluate" / "rl" / "episodes.csv").is_file()
    with pytest.raises(ValueError, match="flips=true is no option of evaluating domain=joint; possible: none"):
        evaluate(tmp_path, tmp_path / "evaluate", flips=True)
    with pytest.raises(ValueError, match=r"does not know of which domain x\.png is; .* domain=vision init=FOLDER"):
        predict(compose("predict", [f"run={tmp_path}", "input=x.png"]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.weights.rl=-1", r"data\.weights=.* must not be negative"),
        ("model.rl.dim=21", r"model\.rl\.dim=21 is of one core with model\.dim=14; set that alone"),
        ("model.text.gpt2_init=true", "change a core that is not the text's alone"),
        ("position=rotary", r"position=rotary is of no domain here; .* position@model\.positions\.text"),
        ("position@model.positions.vision=alibi", "alibi is for causal attention"),
    ],
)
def test_what_cannot_be(joint, setting, message):
    _, data, _, _ = joint
    config = compose("config", [*TINY, setting])
    with pytest.raises(ValueError, match=message):
        make_data(config) if "weights" in setting else make_adapter(config, data.spec())
