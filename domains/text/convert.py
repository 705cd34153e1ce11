"""Conversion of GPT-2 and Llama of transformers to our adapter, with the same logits, and back.

    adapter = from_transformers(json.loads(Path("config.json").read_text()), load_file("model.safetensors"))

    theirs = their_config(model, position, spec)  # the config.json of an adapter
    state = export_state_dict(adapter, TABLES[theirs["model_type"]](model))

Shapes: D head width · H query heads · G key/value heads
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from core.config import Activation, Norm, PositionConfig, PositionKind
from core.convert import SAME, TRANSPOSED, Row, Table, Unused, load, stacked
from domains.text.adapter import BYTES, Adapter
from domains.text.config import ModelConfig
from domains.text.config_json import HfConfig, allow_only, boolean, check_unread, fraction, positive_int, required_sizes
from domains.text.rope import our_position, their_rope
from domains.text.tokenizers import Tokenizer

Spec = dict[str, Any]  # the spec of its data

# GPT-2's names of our activations; the first of two is exported.
ACTIVATIONS = {
    "gelu_new": Activation.gelu_tanh,
    "gelu_pytorch_tanh": Activation.gelu_tanh,
    "gelu": Activation.gelu,
    "relu": Activation.relu,
    "relu2": Activation.relu2,
}

# Our settings that do not change what a trained model with softmax attention computes.
NO_EFFECT = {"dropout", "drop_path", "zero_init", "gpt2_init", "window"}


def from_transformers(theirs: HfConfig, state: Mapping[str, Tensor], tokenizer: Tokenizer | None = None) -> Adapter:
    """Return an adapter with the weights and the logits of a GPT2LMHeadModel or LlamaForCausalLM.

    Args:
        theirs: the content of their config.json.
        state: their weights by name.
        tokenizer: theirs.
    Raises:
        ValueError: for a configuration without a counterpart here, or weights or a tokenizer that do not fit it.
    """
    model, position, spec = our_config(theirs, tokenizer)
    check_unread(theirs)
    if theirs["model_type"] == "gpt2" and "wte.weight" in state:  # OpenAI's weights are published without a head
        state = {f"transformer.{name}": tensor for name, tensor in state.items()}
    _check_size(model, spec, state)
    adapter = Adapter(model, position, spec)
    load(adapter, state, TABLES[theirs["model_type"]](model))
    return adapter.eval()


def gpt2(config: ModelConfig) -> Table:
    """Return the table of our weights in GPT2LMHeadModel. Its linear layers hold (in, out); q, k and v are one of
    them."""
    rows: list[Row | Unused] = [
        Row("transformer.wte.weight", "embed.weight"),
        Row("transformer.wpe.weight", "transformer.position.table"),
        Unused("transformer.h.*.attn.bias"),  # masks that old files keep with the weights
        Unused("transformer.h.*.attn.masked_bias"),
        _head(config),
    ]
    for part, how in (("weight", TRANSPOSED), ("bias", SAME)):
        rows.append(Row(f"transformer.ln_f.{part}", f"transformer.norm.{part}"))
        for n in range(config.depth):
            theirs, ours = f"transformer.h.{n}", f"transformer.blocks.{n}"
            rows += [
                Row(f"{theirs}.ln_1.{part}", f"{ours}.norm1.{part}"),
                Row(f"{theirs}.attn.c_attn.{part}", f"{ours}.mixer.qkv.{part}", how),
                Row(f"{theirs}.attn.c_proj.{part}", f"{ours}.mixer.out.{part}", how),
                Row(f"{theirs}.ln_2.{part}", f"{ours}.norm2.{part}"),
                Row(f"{theirs}.mlp.c_fc.{part}", f"{ours}.feed_forward.up.{part}", how),
                Row(f"{theirs}.mlp.c_proj.{part}", f"{ours}.feed_forward.out.{part}", how),
            ]
    return rows


def llama(config: ModelConfig) -> Table:
    """Return the table of our weights in LlamaForCausalLM."""
    H, G, D = config.num_heads, config.num_kv_heads or config.num_heads, config.dim // config.num_heads
    qkv, up = stacked(H * D, G * D, G * D), stacked(_hidden(config), _hidden(config))
    rows: list[Row | Unused] = [
        Row("model.embed_tokens.weight", "embed.weight"),
        Row("model.norm.weight", "transformer.norm.weight"),
        Unused("model.layers.*.rotary_emb.inv_freq"),  # old files keep it with the weights
        _head(config),
    ]
    for n in range(config.depth):
        theirs, ours = f"model.layers.{n}", f"transformer.blocks.{n}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        rows += [
            Row(f"{theirs}.input_layernorm.weight", f"{ours}.norm1.weight"),
            Row(f"{theirs}.post_attention_layernorm.weight", f"{ours}.norm2.weight"),
        ]
        for part in ("weight", "bias") if config.linear_bias else ("weight",):
            rows += [
                Row(tuple(f"{attention}.{x}_proj.{part}" for x in "qkv"), f"{ours}.mixer.qkv.{part}", qkv),
                Row(f"{attention}.o_proj.{part}", f"{ours}.mixer.out.{part}"),
                Row((f"{mlp}.gate_proj.{part}", f"{mlp}.up_proj.{part}"), f"{ours}.feed_forward.up.{part}", up),
                Row(f"{mlp}.down_proj.{part}", f"{ours}.feed_forward.out.{part}"),
            ]
    return rows


TABLES: dict[str, Callable[[ModelConfig], Table]] = {"gpt2": gpt2, "llama": llama}


def our_config(theirs: HfConfig, tokenizer: Tokenizer | None = None) -> tuple[ModelConfig, PositionConfig, Spec]:
    """Return the configuration of an adapter that computes the same as their model, and has their tokenizer.

    Raises:
        ValueError: for what has no counterpart here: another model_type, rotary positions that change with the length,
            another head width, another activation, biases in some linear layers only.
    """
    match theirs.get("model_type"):
        case "gpt2":
            model, position, spec = _from_gpt2(theirs)
        case "llama":
            model, position, spec = _from_llama(theirs)
        case other:
            raise ValueError(f"model_type={other!r} cannot be imported; possible: {', '.join(TABLES)}")
    return model, position, spec | ({"tokenizer": tokenizer.spec()} if tokenizer else {})


def their_config(model: ModelConfig, position: PositionConfig, spec: Spec) -> dict[str, Any]:
    """Return the config.json of a model of theirs that computes the same: GPT-2 for learned positions, Llama for
    rotary.

    Which tokens begin and end a text is left to the tokenizer.

    Raises:
        ValueError: for settings without a counterpart there.
    """
    eps = 1e-5 if model.norm is Norm.layer else torch.finfo(torch.float32).eps
    model = replace(  # the same, in full
        model,
        num_kv_heads=model.num_kv_heads or model.num_heads,
        mlp_ratio=_hidden(model) / model.dim,
        norm_eps=eps if model.norm_eps is None else model.norm_eps,
    )
    match position.kind:
        case PositionKind.learned:
            theirs = _to_gpt2(model, spec)
        case PositionKind.rotary:
            theirs = _to_llama(model, position, spec)
        case other:
            raise ValueError(f"position={other.value} cannot be exported; possible: learned (GPT-2), rotary (Llama)")
    again, _, _ = our_config(theirs)
    pairs = {
        f"model.{name}": (value, getattr(again, name)) for name, value in asdict(model).items() if name not in NO_EFFECT
    }
    pairs |= {"position.table": (position.table, False), "data.ngram_lookup": (spec["ngram_orders"], [])}
    lost = [f"{name}={_shown(a)} (possible: {_shown(b)})" for name, (a, b) in pairs.items() if a != b]
    if lost:
        raise ValueError(f"{theirs['model_type']} has no {', no '.join(lost)}")
    return theirs


def _from_gpt2(theirs: HfConfig) -> tuple[ModelConfig, PositionConfig, Spec]:
    allow_only(theirs, scale_attn_weights=[True], scale_attn_by_inverse_layer_idx=[False], add_cross_attention=[False])
    dim, depth, heads = required_sizes(theirs, "n_embd", "n_layer", "n_head")
    activation = theirs.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        possible = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation_function={activation!r} cannot be imported; possible: {possible}")
    model = ModelConfig(
        dim=dim,
        depth=depth,
        num_heads=heads,
        num_kv_heads=heads,
        mlp_ratio=positive_int("n_inner", theirs.get("n_inner") or 4 * dim) / dim,
        activation=ACTIVATIONS[activation],
        norm_eps=fraction(theirs, "layer_norm_epsilon", 1e-5),
        tie_word_embeddings=boolean(theirs, "tie_word_embeddings", True),
    )
    return model, PositionConfig(PositionKind.learned), _spec(*required_sizes(theirs, "n_positions", "vocab_size"))


def _to_gpt2(model: ModelConfig, spec: Spec) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": spec.get("vocab_size", BYTES),
        "n_positions": spec["context"],
        "n_embd": model.dim,
        "n_layer": model.depth,
        "n_head": model.num_heads,
        "n_inner": _hidden(model),
        "activation_function": names.get(model.activation, "gelu_new"),
        "layer_norm_epsilon": model.norm_eps,
        "tie_word_embeddings": model.tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _from_llama(theirs: HfConfig) -> tuple[ModelConfig, PositionConfig, Spec]:
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    dim, depth, heads, hidden = required_sizes(theirs, *sizes)
    bias, mlp_bias = boolean(theirs, "attention_bias", False), boolean(theirs, "mlp_bias", False)
    if bias != mlp_bias:
        raise ValueError(f"attention_bias={bias} with mlp_bias={mlp_bias} cannot be imported: both or neither")
    allow_only(theirs, hidden_act=["silu", "swish"], head_dim=[dim // heads])
    model = ModelConfig(
        dim=dim,
        depth=depth,
        num_heads=heads,
        num_kv_heads=positive_int("num_key_value_heads", theirs.get("num_key_value_heads") or heads),
        mlp_ratio=hidden / dim,
        activation=Activation.swiglu,
        norm=Norm.rms,
        norm_eps=fraction(theirs, "rms_norm_eps", 1e-6),
        linear_bias=bias,
        tie_word_embeddings=boolean(theirs, "tie_word_embeddings", False),
    )
    spec = _spec(*required_sizes(theirs, "max_position_embeddings", "vocab_size"))
    return model, our_position(theirs), spec


def _to_llama(model: ModelConfig, position: PositionConfig, spec: Spec) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": spec.get("vocab_size", BYTES),
        "max_position_embeddings": spec["context"],
        "hidden_size": model.dim,
        "intermediate_size": _hidden(model),
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": their_rope(position, spec["context"]),
        "attention_bias": model.linear_bias,
        "mlp_bias": model.linear_bias,
        "tie_word_embeddings": model.tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _head(config: ModelConfig) -> Row | Unused:
    return Unused("lm_head.weight") if config.tie_word_embeddings else Row("lm_head.weight", "lm_head.weight")


def _hidden(config: ModelConfig) -> int:
    return round(config.dim * config.mlp_ratio)


def _spec(context: int, vocabulary: int) -> Spec:
    return {"context": context, "vocab_size": vocabulary, "ngram_orders": [], "ngram_text": ""}


def _check_size(model: ModelConfig, spec: Spec, state: Mapping[str, Tensor]) -> None:
    """Refuse a configuration with more weights than the file, before they are allocated."""
    have = sum(tensor.numel() for tensor in state.values())
    D, G = model.dim // model.num_heads, model.num_kv_heads or model.num_heads
    block = model.dim * (2 * model.dim + 2 * G * D) + (3 if model.activation is Activation.swiglu else 2) * (
        model.dim * _hidden(model)
    )
    need = model.dim * spec["vocab_size"] + model.depth * block
    if need > have:
        raise ValueError(f"config.json describes {need:,} weights at least, and the file has {have:,}")


def _shown(value: Any) -> str:
    return str(getattr(value, "value", value))
