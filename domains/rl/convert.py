"""DecisionTransformerModel of the transformers library as an adapter of ours, with the same actions, and back.

    adapter = from_decision_transformer(theirs.config.to_dict(), theirs.state_dict(), known)
    theirs.load_state_dict(their_state(adapter, their_config(adapter, position)))

Shapes: S state width · A width of an action · C token width
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from core.config import Activation, Norm, PositionConfig
from core.convert import TRANSPOSED, Row, Table, Transform, Unused, export_state_dict, load
from domains.rl.adapter import Adapter
from domains.rl.config import ModelConfig

# What a config.json leaves out where it is the default.
DEFAULTS = {
    "state_dim": 17,
    "act_dim": 4,
    "hidden_size": 128,
    "max_ep_len": 4096,
    "n_positions": 1024,
    "n_layer": 3,
    "n_head": 1,
    "n_inner": None,
    "activation_function": "relu",
    "resid_pdrop": 0.1,
    "action_tanh": True,
}
# What is built into ours.
FIXED = {
    "model_type": "decision_transformer",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "layer_norm_epsilon": 1e-5,  # the norm of the tokens has it whatever the configuration says
}
ACTIVATIONS = {
    "relu": Activation.relu,
    "gelu": Activation.gelu,
    "gelu_new": Activation.gelu_tanh,
    "gelu_pytorch_tanh": Activation.gelu_tanh,
    "relu2": Activation.relu2,
}
# Ours that change nothing in what a trained model does: how it began, how it trained, what it does not use.
MUTE = ("dropout", "drop_path", "zero_init", "window", "patch_size", "target_quantile")
# What a config.json does not say at all.
KNOWN = {
    "mean": "of each number of a state in the training data",
    "std": "its standard deviation",
    "environment": "a Gymnasium id",
    "context": "time steps that the model was trained to see, such as 20",
    "return_scale": "what returns were divided by, such as 1000",
    "best_return": "of an episode in the training data",
}
# Nor this, which need not be given: bounds of actions (±1), how many there are if they are numbers, how to play, the
# environment's EnvSpec, and what is taken off states before all else.
OPTIONAL = ("low", "high", "actions", "delayed", "temperature", "env_spec", "offset")


def from_decision_transformer(theirs: Mapping[str, Any], state: Mapping[str, Tensor], known: dict[str, Any]) -> Adapter:
    """An adapter with the weights of theirs and the same actions.

    Theirs wants states normalised and returns scaled by its caller; ours does both itself. Batches are padded at the
    right: since time steps are numbered within the episode, that gives the actions of a batch padded at the left.

    Args:
        theirs: its DecisionTransformerConfig as a dict, or its config.json.
        state: its weights.
        known: what that does not say: "mean" and "std" of the states, (S,) each, "environment", "context",
            "return_scale" and "best_return", and perhaps more (`OPTIONAL`), as in the spec of an `Adapter`.
    Raises:
        ValueError: if something is not known, for a configuration that has no counterpart, or for weights that do not
            fit it.
    """
    adapter = Adapter(*decision_transformer_config(theirs, known))
    load(adapter, state, decision_transformer_table(theirs))
    return adapter


def decision_transformer_config(
    theirs: Mapping[str, Any], known: dict[str, Any]
) -> tuple[ModelConfig, PositionConfig, dict[str, Any]]:
    """What builds an adapter of the same shape: model, position and spec.

    Their dropout of tokens and of attention weights has no counterpart; it is gone once a model is trained.
    """
    theirs = DEFAULTS | FIXED | dict(theirs)
    for name, value in FIXED.items():
        if theirs[name] != value:
            raise ValueError(f"{name}={theirs[name]} cannot be imported; possible: {value}")
    activation = theirs["activation_function"]
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation_function={activation} cannot be imported; possible: {', '.join(ACTIVATIONS)}")
    model = ModelConfig(
        dim=theirs["hidden_size"],
        depth=theirs["n_layer"],
        num_heads=theirs["n_head"],
        mlp_ratio=(theirs["n_inner"] or 4 * theirs["hidden_size"]) / theirs["hidden_size"],
        activation=ACTIVATIONS[activation],
        dropout=theirs["resid_pdrop"],
    )
    spec = {
        "limit": theirs["max_ep_len"],
        "states": theirs["state_dim"],
        **_bounds(theirs["act_dim"], theirs["action_tanh"], known),
        **_checked(known, theirs["state_dim"]),
    }
    return model, PositionConfig(), spec


def their_config(adapter: Adapter, position: PositionConfig) -> dict[str, Any]:
    """The config.json of a model of theirs that computes what ours does, dropout aside.

    Raises:
        ValueError: for settings that theirs has no like of.
    """
    c, spec = adapter.config, adapter.spec
    if not isinstance(spec["states"], int):
        raise ValueError("DecisionTransformerModel takes states that are vectors; these are images")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    hidden = round(c.dim * c.mlp_ratio)
    theirs = {
        "model_type": "decision_transformer",
        "architectures": ["DecisionTransformerModel"],
        "state_dim": spec["states"],
        "act_dim": adapter.actions.width,
        "hidden_size": c.dim,
        "max_ep_len": spec["limit"],
        "n_positions": 3 * spec["context"],
        "n_layer": c.depth,
        "n_head": c.num_heads,
        "n_inner": hidden,
        "activation_function": names.get(c.activation, "relu"),
        "action_tanh": "low" in spec,
        "layer_norm_epsilon": FIXED["layer_norm_epsilon"],
        **{f"{where}_pdrop": c.dropout for where in ("resid", "embd", "attn")},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    full = replace(
        c,
        num_kv_heads=None if c.num_kv_heads == c.num_heads else c.num_kv_heads,
        mlp_ratio=hidden / c.dim,
        norm_eps=None if c.norm is Norm.layer and c.norm_eps == FIXED["layer_norm_epsilon"] else c.norm_eps,
    )
    again, place, _ = decision_transformer_config(theirs, known_of(adapter))
    pairs = {f"model.{name}": (v, getattr(again, name)) for name, v in asdict(full).items() if name not in MUTE}
    pairs |= {"position": (position.kind, place.kind)}
    lost = [f"{name}={_shown(a)} (possible: {_shown(b)})" for name, (a, b) in pairs.items() if a != b]
    if lost:
        raise ValueError(f"DecisionTransformerModel has no {', no '.join(lost)}")
    return theirs


def known_of(adapter: Adapter) -> dict[str, Any]:
    """What theirs does not say of a model of ours: `known` of `from_decision_transformer`."""
    mean, std = adapter.mean.tolist(), (adapter.std.double() - 1e-6).tolist()  # those of the weights
    return {name: adapter.spec[name] for name in (*KNOWN, *OPTIONAL) if name in adapter.spec} | {
        "mean": mean,
        "std": std,
    }


def their_state(adapter: Adapter, theirs: Mapping[str, Any]) -> dict[str, Tensor]:
    """All weights of a model of theirs, given its configuration. What ours has no like of is 0, and unused there."""
    plain = deepcopy(adapter)
    plain.hope = None  # the own target has no place there
    C, S = theirs["hidden_size"], theirs["state_dim"]
    shapes = {"encoder.wte": (1, C), "predict_state": (S, C), "predict_return": (1, C)}
    empty = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    empty |= {"predict_state.bias": torch.zeros(S), "predict_return.bias": torch.zeros(1)}
    return export_state_dict(plain.cpu(), decision_transformer_table(theirs)) | empty


def decision_transformer_table(theirs: Mapping[str, Any]) -> Table:
    """What is called how, for a model of this configuration."""
    theirs = DEFAULTS | dict(theirs)
    table = [
        *_pair("embed_return", "embed_return"),
        *_pair("embed_state", "embed_state"),
        *_pair("encoder.ln_f", "transformer.norm"),
        *_pair("predict_action.0", "act"),
        Row("embed_timestep.weight", "transformer.position.table"),
        Row("embed_ln.weight", "transformer.embed_norm.weight"),
        Row(("embed_ln.bias", "encoder.wpe.weight"), "transformer.embed_norm.bias", _same_place(theirs["n_positions"])),
        *(Unused(name) for name in ("encoder.wte.weight", "predict_state.*", "predict_return.*")),
        *(Unused(f"encoder.h.*.attn.{mask}") for mask in ("bias", "masked_bias")),  # in old files
    ]
    if theirs["action_tanh"]:
        table += _pair("embed_action", "embed_action")
    else:
        table.append(Row(("embed_action.weight", "embed_action.bias"), "embed_action.weight", ONE_HOT))
    for n in range(theirs["n_layer"]):
        a, b = f"encoder.h.{n}", f"transformer.blocks.{n}"
        table += [
            *_pair(f"{a}.ln_1", f"{b}.norm1"),
            *_pair(f"{a}.ln_2", f"{b}.norm2"),
            *_pair(f"{a}.attn.c_attn", f"{b}.mixer.qkv", TRANSPOSED),
            *_pair(f"{a}.attn.c_proj", f"{b}.mixer.out", TRANSPOSED),
            *_pair(f"{a}.mlp.c_fc", f"{b}.feed_forward.up", TRANSPOSED),
            *_pair(f"{a}.mlp.c_proj", f"{b}.feed_forward.out", TRANSPOSED),
        ]
    return table


# A linear map of numbers given one-hot, weight (C, A) and bias (C,), as a table (A, C).
ONE_HOT = Transform(
    lambda theirs: [theirs[0].T + theirs[1]],
    lambda ours: [ours[0].T, ours[0].new_zeros(ours[0].shape[1])],
)


def _pair(theirs: str, ours: str, *weight: Transform) -> tuple[Row, Row]:
    """Weight and bias of a layer."""
    return Row(f"{theirs}.weight", f"{ours}.weight", *weight), Row(f"{theirs}.bias", f"{ours}.bias")


def _same_place(positions: int) -> Transform:
    """Their tokens all stand at place 0 of a table of GPT-2 that comes after the norm: a part of the norm's bias.

    Source: transformers' issue 17946.
    """
    return Transform(
        lambda theirs: [theirs[0] + theirs[1][0]],  # (C,) and (positions, C)
        lambda ours: [ours[0], ours[0].new_zeros(positions, len(ours[0]))],
    )


def _bounds(width: int, tanh: bool, known: dict[str, Any]) -> dict[str, Any]:
    """What the spec says of actions: vectors behind a tanh, or as many numbers as there are logits."""
    if tanh and "actions" not in known:
        return {"low": [-1.0] * width, "high": [1.0] * width}
    if tanh or known.get("actions") != width:
        raise ValueError(
            f"act_dim={width} and action_tanh={tanh} with known actions={known.get('actions')} cannot be imported;"
            f" possible: action_tanh=True for vectors, or action_tanh=False and known={{actions: {width}}} for numbers"
        )
    return {"actions": width}


def _shown(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _checked(known: dict[str, Any], states: int) -> dict[str, Any]:
    missing = [f"{name} ({what})" for name, what in KNOWN.items() if name not in known]
    if missing:
        raise ValueError(
            f"a decision transformer's config.json does not say: {', '.join(missing)}; give them as known={{…}}"
            " (published models have them in their model card)"
        )
    if strange := sorted(known.keys() - KNOWN.keys() - set(OPTIONAL)):
        raise ValueError(f"known={', '.join(strange)} means nothing; possible: {', '.join((*KNOWN, *OPTIONAL))}")
    mean, std = ([float(v) for v in known[name]] for name in ("mean", "std"))
    if not len(mean) == len(std) == states:
        raise ValueError(f"states have {states} numbers; mean has {len(mean)} and std {len(std)}")
    return known | {"mean": mean, "std": std}
