"""GPT-2 and Llama of transformers, every weight drawn anew, against adapters of ours with those weights."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from core.config import Activation, Mixer, PositionConfig, PositionKind, RotaryScaling
from core.convert import export_state_dict
from domains.data_warnings import DataWarning
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.convert import TABLES, from_transformers, our_config, their_config
from domains.text.generate import Sampling, generate

CONTEXT, LENGTH = 61, 37
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 10
GPT2: dict[str, Any] = {
    "vocab_size": 97,
    "n_positions": CONTEXT,
    "n_embd": 33,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA: dict[str, Any] = {
    "vocab_size": 101,
    "max_position_embeddings": CONTEXT,
    "hidden_size": HEADS * HEAD_DIM,
    "intermediate_size": 53,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "bos_token_id": None,
    "eos_token_id": None,
}


def make_gpt2(**changes: Any) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(**(GPT2 | changes)))


def make_llama(**changes: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**(LLAMA | changes)))


MODELS = {
    "gpt2": lambda: make_gpt2(),
    "gpt2 with an exact gelu and a hidden width": lambda: make_gpt2(activation_function="gelu", n_inner=59),
    "gpt2 with a head of its own": lambda: make_gpt2(activation_function="relu", tie_word_embeddings=False),
    "llama": lambda: make_llama(),
    "llama with a tied head": lambda: make_llama(tie_word_embeddings=True, num_key_value_heads=None, rms_norm_eps=1e-5),
    "llama with biases and a longer base": lambda: make_llama(
        attention_bias=True, mlp_bias=True, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    ),
}
# Rotary positions for longer contexts than at first: 37 tokens are read, of which the first model saw 16 or fewer.
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.5},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 13},
    "yarn, all said": {
        "rope_type": "yarn",
        "factor": 5.5,
        "original_max_position_embeddings": 11,
        "beta_fast": 3.0,
        "beta_slow": 0.5,
        "truncate": False,
        "attention_factor": 1.3,
    },
    "yarn of DeepSeek": {
        "rope_type": "yarn",
        "factor": 7.0,
        "original_max_position_embeddings": 17,
        "mscale": 0.7,
        "mscale_all_dim": 0.3,
    },
    "longrope, alike": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5, 2.0, 4.5, 7.0],
        "long_factor": [1.0, 1.5, 2.0, 4.5, 7.0],
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
MODELS |= {
    name: lambda rope=rope: make_llama(rope_parameters={"rope_theta": 1e3, **rope}) for name, rope in SCALED.items()
}


@pytest.fixture(params=MODELS)
def theirs(request, randomise):
    return randomise(MODELS[request.param](), seed=2)  # whose greedy texts are varied


@torch.inference_mode()
def logits(model) -> Tensor:
    """What either kind of model says about the same random tokens, (2, LENGTH, V)."""
    ours = isinstance(model, Adapter)
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.vocab_size if ours else model.config.vocab_size, (2, LENGTH), generator=draw)
    return model({"tokens": tokens}) if ours else model(tokens).logits


def test_our_logits_are_theirs(theirs):
    adapter = from_transformers(theirs.config.to_dict(), theirs.state_dict())
    want, got = logits(theirs), logits(adapter)
    assert 0.5 < want.std() < 20
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * max(1.0, want.std().item()))  # some hundred roundings


def test_a_model_of_theirs_takes_ours_back(theirs, randomise):
    adapter = from_transformers(theirs.config.to_dict(), theirs.state_dict())
    model, position, spec = our_config(theirs.config.to_dict())
    randomise(adapter, seed=5)
    config = their_config(model, position, spec)
    other = type(theirs)(type(theirs.config).from_dict(config))
    keys = other.load_state_dict(export_state_dict(adapter, TABLES[config["model_type"]](model)), strict=False)
    assert keys.unexpected_keys == []
    assert keys.missing_keys == (["lm_head.weight"] if model.tie_word_embeddings else [])
    other.tie_weights()
    torch.testing.assert_close(
        logits(other.eval()), logits(adapter), rtol=0, atol=2e-5 * max(1.0, logits(adapter).std().item())
    )
    assert not torch.allclose(logits(adapter), logits(theirs), atol=0.1)
    assert our_config(config) == our_config(theirs.config.to_dict()) == our_config(other.config.to_dict())


@pytest.mark.parametrize("rope", SCALED.values(), ids=SCALED)
def test_a_scaled_rotation_is_another_one_and_goes_out_as_it_came_in(rope, randomise):
    theirs = randomise(make_llama(rope_parameters={"rope_theta": 1e3, **rope}))
    config, state = theirs.config.to_dict(), theirs.state_dict()
    plain = config | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e3}}
    assert (logits(from_transformers(plain, state)) - logits(theirs)).abs().max() > 0.01
    before_5 = {name: value for name, value in config.items() if name != "rope_parameters"}
    old = before_5 | {"rope_theta": 1e3, "rope_scaling": {"type": rope["rope_type"], **rope}}
    assert our_config(old) == our_config(config)
    model, position, spec = our_config(config)
    again = their_config(model, position, spec)["rope_parameters"]
    assert again["rope_type"] == rope["rope_type"]
    assert {
        name: again[name] for name in rope.keys() & again.keys() - {"factor", "original_max_position_embeddings"}
    } == {name: rope[name] for name in rope.keys() & again.keys() - {"factor", "original_max_position_embeddings"}}


@pytest.mark.plain
@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_type='dynamic' cannot be imported"),
        ({"rope_type": ["yarn"]}, "cannot be imported"),
        ({"rope_type": "linear"}, "rope_type='linear' needs factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor='4' must be a number"),
        ({"rope_type": "linear", "factor": 0}, "factor=0.* must be a positive number"),
        ({"rope_type": "linear", "factor": float("inf")}, "factor=inf must be a number"),
        (
            {"rope_type": "linear", "factor": 2.0, "alpha": 8},
            "'linear' cannot be imported with alpha, which is not known",
        ),
        ({"rope_type": "llama3", "factor": 8.0}, "'llama3' needs high_freq_factor, low_freq_factor"),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1},
            r"low_freq_factor=4.* must be below high_freq_factor=1",
        ),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": "many"}, "must be a whole number of"),
        ({"rope_type": "yarn", "factor": 4.0, "truncate": "no"}, "truncate='no' must be true or false"),
        (
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 5,
                "long_factor": [2.0] * 5,
                "original_max_position_embeddings": 16,
            },
            "short_factor and long_factor differ",
        ),
        (
            {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
            "are 1 numbers; heads of 10 features need 5",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 cannot be imported; possible here: 1"),
        ({"rope_theta": 1}, "rope_theta=1.* must be above 1"),
        ({"full_attention": {"rope_type": "default"}}, "possible: one for all layers"),
    ],
)
def test_rotations_that_we_have_no_like_of(rope, message):
    theirs = make_llama()
    config = theirs.config.to_dict() | {"rope_parameters": {"rope_theta": 1e4, **rope}}
    with pytest.raises(ValueError, match=message):
        from_transformers(config, theirs.state_dict())


def test_weights_come_back_as_they_were(theirs):
    state = theirs.state_dict()
    adapter = from_transformers(theirs.config.to_dict(), state)
    again = export_state_dict(adapter, TABLES[theirs.config.model_type](adapter.config))
    assert state.keys() - again.keys() == ({"lm_head.weight"} if adapter.config.tie_word_embeddings else set())
    for name, value in again.items():
        assert torch.equal(value, state[name]), name


def test_greedy_text_is_theirs(theirs):
    """Through caches on both sides."""
    adapter = from_transformers(theirs.config.to_dict(), theirs.state_dict())
    prompt = torch.randint(adapter.vocab_size, (1, 13), generator=torch.Generator().manual_seed(3))
    want = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=43, do_sample=False, pad_token_id=0
    )[0, 13:].tolist()
    assert len(set(want)) > 5
    assert list(generate(adapter, prompt[0].tolist(), Sampling(length=43, temperature=0))) == want


def test_the_published_gpt2_names_its_weights_without_a_head(randomise):
    theirs = randomise(make_gpt2())
    state = theirs.transformer.state_dict()
    state |= {f"h.{n}.attn.bias": torch.ones(1, 1, CONTEXT, CONTEXT).tril() for n in range(2)}
    adapter = from_transformers(theirs.config.to_dict(), state)
    torch.testing.assert_close(logits(adapter), logits(theirs), rtol=0, atol=2e-5)


def test_a_configuration_from_before_transformers_5():
    new = make_llama(rope_parameters={"rope_type": "default", "rope_theta": 777.0}).config.to_dict()
    old = {name: value for name, value in new.items() if name != "rope_parameters"}
    assert our_config(old | {"rope_theta": 777.0, "rope_scaling": None}) == our_config(new)
    assert our_config(new)[1].base == 777.0
    scaled = our_config(old | {"rope_theta": 777.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert scaled[1] == PositionConfig(PositionKind.rotary, base=777.0, scaling=RotaryScaling(factor=2.0))


# Errors


def test_weights_that_do_not_fit(theirs):
    config, state = theirs.config.to_dict(), theirs.state_dict()
    with pytest.raises(ValueError, match=r"no row of the table takes these weights: score\.weight"):
        from_transformers(config, state | {"score.weight": torch.zeros(2)})
    name = next(name for name in state if name.endswith("c_attn.weight") or name.endswith("k_proj.weight"))
    with pytest.raises(ValueError, match=f"these weights are missing: {name}"):
        from_transformers(config, {other: value for other, value in state.items() if other != name})


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (
            make_llama,
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type='dynamic' cannot be imported.*; possible: default, linear, llama3, yarn, longrope",
        ),
        (make_llama, {"head_dim": 16}, "head_dim=16 cannot be imported; possible here: 10"),
        (make_llama, {"attention_bias": True}, "attention_bias=True with mlp_bias=False .* both or neither"),
        (make_llama, {"hidden_act": "gelu"}, "hidden_act='gelu' cannot be imported; possible here: 'silu'"),
        (make_gpt2, {"activation_function": "tanh"}, "activation_function='tanh' .* possible: gelu_new, .*, relu2"),
        (make_gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True cannot"),
    ],
)
def test_models_of_theirs_that_we_have_no_like_of(make, changes, message):
    theirs = make(**changes)
    with pytest.raises(ValueError, match=message):
        from_transformers(theirs.config.to_dict(), theirs.state_dict())


def test_a_configuration_must_be_whole_and_of_a_known_kind():
    config = make_llama().config.to_dict()
    with pytest.raises(ValueError, match="model_type='mamba' cannot be imported; possible: gpt2, llama"):
        our_config(config | {"model_type": "mamba"})
    with pytest.raises(ValueError, match="model_type=None"):
        our_config({})
    del config["hidden_size"]
    with pytest.raises(ValueError, match="a llama model lacks hidden_size"):
        our_config(config)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sliding_window": 16}, "sliding_window=16 cannot be imported; possible here: none"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 cannot"),
        ({"logits_scaling": 8.0}, "logits_scaling=8.0 cannot be imported; possible here: 1"),
        ({"num_local_experts": 8}, "num_local_experts=8 cannot"),
        ({"layer_types": ["sliding_attention"]}, "layer_types=.* cannot"),
        ({"quantization_config": {"bits": 4}}, "quantization_config=.* cannot"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps='small' must be a number from 0 to 1"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes' must be true or false"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be a whole number"),
        ({"num_hidden_layers": 10**9}, "config.json describes .* weights at least, and the file has"),
        ({"vocab_size": 10**12}, "config.json describes .* weights at least, and the file has"),
    ],
)
def test_a_setting_that_would_change_the_logits_is_refused(said, message):
    theirs = make_llama()
    with pytest.raises(ValueError, match=message):
        from_transformers(theirs.config.to_dict() | said, theirs.state_dict())


def test_a_setting_that_is_not_known_is_said():
    theirs = make_llama()
    strange = {"mup_width": 0.5, "pretraining_tp": 2, "sliding_window": None}
    with pytest.warns(DataWarning, match=r"^1 settings of config.json are not known here .*: mup_width=0\.5$"):
        from_transformers(theirs.config.to_dict() | strange, theirs.state_dict())


SPEC = {"context": CONTEXT, "vocab_size": 97, "ngram_orders": [], "ngram_text": ""}


@pytest.mark.parametrize(
    ("model", "position", "spec", "message"),
    [
        (ModelConfig(), PositionConfig(PositionKind.alibi), SPEC, r"position=alibi .*: learned \(GPT-2\), rotary"),
        (ModelConfig(qk_norm=True), PositionConfig(), SPEC, r"gpt2 has no model\.qk_norm=True \(possible: False\)$"),
        (
            ModelConfig(linear_bias=False, num_kv_heads=2),
            PositionConfig(),
            SPEC,
            r"num_kv_heads=2 \(possible: 4\), no model\.linear_bias",
        ),
        (ModelConfig(mixer=Mixer.linear), PositionConfig(), SPEC, r"mixer=linear \(possible: softmax\)"),
        (
            ModelConfig(activation=Activation.relu2),
            PositionConfig(PositionKind.rotary, table=True),
            SPEC,
            r"llama has no .*activation=relu2 \(possible: swiglu\).*norm=layer .*position\.table=True",
        ),
        (
            ModelConfig(),
            PositionConfig(),
            SPEC | {"ngram_orders": [2]},
            r"gpt2 has no data\.ngram_lookup=\[2\] \(possible: \[\]\)",
        ),
    ],
)
def test_models_of_ours_that_they_have_no_like_of(model, position, spec, message):
    with pytest.raises(ValueError, match=message):
        their_config(model, position, spec)


def test_a_model_of_ours_trained_here_can_be_exported():
    """Defaults that only training uses, and those that are None, have a like of theirs."""
    model = ModelConfig(dim=32, dropout=0.1, zero_init=True, activation=Activation.relu2)
    config = their_config(model, PositionConfig(), SPEC)
    assert (config["n_inner"], config["layer_norm_epsilon"], config["activation_function"]) == (128, 1e-5, "relu2")
