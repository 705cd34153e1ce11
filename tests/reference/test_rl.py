"""DecisionTransformerModel of transformers, every weight drawn anew, against an adapter of ours with those weights.

Shapes: B batch · K time steps · S state width · A width of an action
"""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from core.config import Activation, Mixer, Norm, PositionConfig, PositionKind
from core.convert import export_state_dict
from domains.rl.adapter import Adapter
from domains.rl.config import ModelConfig
from domains.rl.convert import decision_transformer_config, decision_transformer_table, from_decision_transformer
from domains.rl.export import export

B, K, S, A, SCALE = 5, 7, 11, 3, 130.0
LENGTHS = [7, 1, 4, 6, 3]  # real steps of each window
SIZES: dict[str, Any] = {
    "state_dim": S,
    "act_dim": A,
    "hidden_size": 78,
    "n_layer": 2,
    "n_head": 6,
    "n_inner": 97,
    "n_positions": 37,
    "max_ep_len": 53,
    "bos_token_id": 0,  # or transformers complains
    "eos_token_id": 0,
}
UNUSED = {f"predict_{what}.{part}" for what in ("state", "return") for part in ("weight", "bias")} | {
    "encoder.wte.weight"
}


def make(**changes):
    return DecisionTransformerModel(DecisionTransformerConfig(**(SIZES | changes)))


@pytest.fixture
def theirs(randomise):
    return randomise(make())


@pytest.fixture
def known():
    rng = torch.Generator().manual_seed(3)
    return {
        "mean": torch.randn(S, generator=rng).tolist(),
        "std": (torch.rand(S, generator=rng) + 0.5).tolist(),
        "env_id": "Hopper-v5",
        "context": K,
        "return_scale": SCALE,
        "best_return": 200.0,
    }


@pytest.fixture
def batch():
    """Windows padded at the right, by what would be seen if anything looked."""
    rng = torch.Generator().manual_seed(1)
    return {
        "returns_to_go": 300 * torch.rand(B, K, generator=rng),
        "states": 2 * torch.randn(B, K, S, generator=rng),
        "actions": 2 * torch.rand(B, K, A, generator=rng) - 1,
        "timesteps": torch.tensor([[0], [19], [8], [46], [2]]) + torch.arange(K),
        "step_mask": torch.arange(K) < torch.tensor(LENGTHS)[:, None],
    }


def actions(theirs, batch, known):
    """What theirs does at the real steps of a batch, which it wants normalised."""
    mean, std = torch.tensor(known["mean"]), torch.tensor(known["std"])
    predicted = theirs(
        states=(batch["states"] - mean) / std,
        actions=batch["actions"],
        returns_to_go=batch["returns_to_go"][..., None] / SCALE,
        timesteps=batch["timesteps"],
        attention_mask=batch["step_mask"].long(),
    ).action_preds
    return predicted[batch["step_mask"]]  # (steps, A), window by window


def at_the_left(batch):
    """The same windows with their padding in front, the way transformers' own example has it."""
    turned = {
        name: torch.stack([row.roll(K - length, 0) for row, length in zip(tensor, LENGTHS, strict=True)])
        for name, tensor in batch.items()
    }
    turned["timesteps"] = turned["timesteps"] * turned["step_mask"]
    return turned


@torch.no_grad()
@pytest.mark.parametrize("turn", [dict, at_the_left])
@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_actions_are_those_of_transformers_and_go_back(randomise, known, batch, turn, activation):
    theirs = randomise(make(activation_function=activation))
    want = actions(theirs, turn(batch), known)
    assert want.std() > 0.1
    config = theirs.config.to_dict()
    ours = from_decision_transformer(config, theirs.state_dict(), known).eval()
    torch.testing.assert_close(ours(batch)[batch["step_mask"]], want, atol=1e-5, rtol=0)

    other = randomise(make(activation_function=activation), seed=2)
    assert not torch.allclose(actions(other, turn(batch), known), want, atol=0.1)
    state = export_state_dict(ours, decision_transformer_table(config))
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert (set(missing), unexpected) == (UNUSED, [])
    assert not other.encoder.wpe.weight.any()
    torch.testing.assert_close(actions(other, turn(batch), known), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_of_ours_goes_there(known, batch):
    torch.manual_seed(0)
    theirs = make().eval()
    config = theirs.config.to_dict()
    ours = from_decision_transformer(config, theirs.state_dict(), known).eval()
    for parameter in ours.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.load_state_dict(export_state_dict(ours, decision_transformer_table(config)), strict=False)
    want = actions(theirs, batch, known)
    assert want.std() > 0.1
    torch.testing.assert_close(ours(batch)[batch["step_mask"]], want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_their_place_zero_is_no_detail(theirs, known, batch):
    want, state = actions(theirs, batch, known), theirs.state_dict()
    state["encoder.wpe.weight"] = torch.zeros_like(state["encoder.wpe.weight"])
    without = from_decision_transformer(theirs.config.to_dict(), state, known).eval()
    assert (without(batch)[batch["step_mask"]] - want).abs().max() > 0.01


def test_the_masks_that_old_files_hold_are_passed_over(theirs, known):
    state = dict(theirs.state_dict())
    for n in range(2):
        state |= {f"encoder.h.{n}.attn.bias": torch.ones(1), f"encoder.h.{n}.attn.masked_bias": torch.ones(1)}
    from_decision_transformer(theirs.config.to_dict(), state, known)
    with pytest.raises(ValueError, match=r"no row of the table takes these weights: encoder.h.0.crossattention.bias"):
        from_decision_transformer(
            theirs.config.to_dict(), state | {"encoder.h.0.crossattention.bias": torch.ones(1)}, known
        )


def test_what_a_configuration_leaves_out_is_the_default(known):
    config = DecisionTransformerConfig()
    known |= {"mean": [0] * config.state_dim, "std": [1] * config.state_dim}
    short = decision_transformer_config({}, known)
    assert short == decision_transformer_config(config.to_dict(), known)
    model, _, spec = short
    assert (model.dim, model.depth, model.num_heads, model.mlp_ratio) == (128, 3, 1, 4)
    assert model.activation is Activation.relu
    assert (spec["max_episode_steps"], spec["state_shape"], spec["low"], spec["high"]) == (
        4096,
        17,
        [-1.0] * 4,
        [1.0] * 4,
    )
    rows = {row.theirs for row in decision_transformer_table({})}
    assert rows == {row.theirs for row in decision_transformer_table(config.to_dict())}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_tanh": False}, r"action_tanh=False .* possible: .* action_tanh=False and known={num_actions: 3}"),
        ({"activation_function": "silu"}, "activation_function=silu cannot be imported; possible: relu, gelu"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06 cannot be imported; possible: 1e-05"),
        ({"model_type": "gpt2"}, "model_type=gpt2 cannot be imported; possible: decision_transformer"),
    ],
)
def test_a_configuration_without_counterpart_is_refused(known, change, message):
    with pytest.raises(ValueError, match=message):
        decision_transformer_config(SIZES | change, known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None, "std": None}, r"does not say: mean \(of each .*\), std \(its .*\); give them as known="),
        ({"return_scale": None}, r"does not say: return_scale \(what .* such as 1000\); give"),
        ({"mena": [0.0]}, "known=mena means nothing; possible: mean, std"),
        ({"num_actions": 3}, "action_tanh=True with known num_actions=3 cannot be imported"),
        ({"mean": [0.0] * 7}, "states have 11 numbers; mean has 7 and std 11"),
    ],
)
def test_what_is_not_known_is_asked_for(known, change, message):
    with pytest.raises(ValueError, match=message):
        decision_transformer_config(SIZES, {name: v for name, v in (known | change).items() if v is not None})


# Models of ours as their folders

VECTORS: dict[str, Any] = {"low": [-1.0, 0.0, -4.0], "high": [1.0, 3.0, 4.0]}
NUMBERS: dict[str, Any] = {"num_actions": A, "delayed": True, "temperature": 0.5}


def made(known, actions, position=PositionKind.learned, **settings):
    config = ModelConfig(**({"dim": 24, "depth": 2, "num_heads": 3, "target_quantile": 0.9} | settings))
    return Adapter(config, PositionConfig(position), {"max_episode_steps": 59, "state_shape": S, **known, **actions})


@torch.no_grad()
@pytest.mark.parametrize("actions_are", [VECTORS, NUMBERS])
def test_a_folder_has_our_actions_and_comes_back(actions_are, known, batch, randomise, tmp_path):
    adapter = randomise(made(known, actions_are, activation=Activation.gelu_tanh, mlp_ratio=2.5))
    low, span = torch.tensor(VECTORS["low"]), torch.tensor(VECTORS["high"]) - torch.tensor(VECTORS["low"])
    if "num_actions" in actions_are:
        numbers = torch.randint(A, (B, K), generator=torch.Generator().manual_seed(4))
        shown, given = batch | {"actions": numbers}, torch.nn.functional.one_hot(numbers, A).float()
    else:
        shown, given = batch | {"actions": low + span * (batch["actions"] + 1) / 2}, batch["actions"]
    want = adapter(shown)[batch["step_mask"]]
    assert want.std() > 0.1

    export(adapter, PositionConfig(), tmp_path)
    loaded: Any = DecisionTransformerModel.from_pretrained(tmp_path, output_loading_info=True)
    theirs, report = loaded
    assert not any(report.values())  # no weight is missing, left over, or of another shape
    told = json.loads((tmp_path / "known.json").read_text())
    got = actions(theirs.eval(), batch | {"actions": given}, told)
    if "num_actions" not in actions_are:
        got = low + span * (got + 1) / 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)

    config = json.loads((tmp_path / "config.json").read_text())
    again = from_decision_transformer(config, load_file(tmp_path / "model.safetensors"), told).eval()
    torch.testing.assert_close(again(shown)[batch["step_mask"]], want, atol=1e-5, rtol=0)
    assert {name: again.spec[name] for name in actions_are} == actions_are
    assert again.return_head is None


@pytest.mark.parametrize(
    ("settings", "lost"),
    [
        ({"return_conditioned": False, "target_quantile": None}, r"model.return_conditioned=False \(possible: True\)"),
        ({"mixer": Mixer.window}, r"model.mixer=window \(possible: softmax\)"),
        ({"norm": Norm.rms}, r"model.norm=rms \(possible: layer\)"),
        ({"linear_bias": False}, "model.linear_bias=False"),
        ({"embed_norm": False}, "model.embed_norm=False"),
        ({"activation": Activation.swiglu}, r"model.activation=swiglu \(possible: relu\)"),
        ({"num_kv_heads": 1, "qk_norm": True}, r"model.num_kv_heads=1 \(possible: None\), no model.qk_norm=True"),
        ({"position": PositionKind.rotary}, r"position=rotary \(possible: learned\)"),
    ],
)
def test_what_they_have_no_like_of_is_named_and_nothing_written(settings, lost, known, tmp_path):
    position = PositionConfig(settings.get("position", PositionKind.learned))
    with pytest.raises(ValueError, match=f"DecisionTransformerModel has no {lost}"):
        export(made(known, VECTORS, **settings), position, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_images_are_no_states_of_theirs(known, tmp_path):
    adapter = Adapter(
        ModelConfig(), PositionConfig(), {"max_episode_steps": 59, **known, **NUMBERS, "state_shape": [16, 16]}
    )
    with pytest.raises(ValueError, match="takes states that are vectors; these are images"):
        export(adapter, PositionConfig(), tmp_path / "none")
