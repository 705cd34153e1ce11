"""Conversion between transformers' DecisionTransformerModel and our adapter, with the same actions.

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

# Defaults that a config.json leaves out.
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
# Values that our model has built in.
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
# Our settings that do not change a trained model's function: initialization, training, unused parts.
MUTE = ("dropout", "drop_path", "zero_init", "window", "patch_size", "target_quantile")
# Required values that a config.json does not have.
KNOWN = {
    "mean": "of each number of a state in the training data",
    "std": "its standard deviation",
    "env_id": "a Gymnasium id",
    "context": "time steps that the model was trained to see, such as 20",
    "return_scale": "what returns were divided by, such as 1000",
    "best_return": "of an episode in the training data",
}
# Optional ones: bounds of vector actions (±1), the number of discrete actions, how to play, the environment's EnvSpec,
# and what is subtracted from states first.
OPTIONAL = ("low", "high", "num_actions", "delayed", "temperature", "env_spec", "offset")


def from_decision_transformer(theirs: Mapping[str, Any], state: Mapping[str, Tensor], known: dict[str, Any]) -> Adapter:
    """Return an adapter with their weights and the same actions.

    Their caller normalizes states and scales returns; our model does both itself. Batches are padded at the right: as
    time steps are numbered within the episode, that gives the actions of a batch padded at the left.

    Args:
        theirs: its DecisionTransformerConfig as a dict, or its config.json.
        state: its weights.
        known: what the config does not say: "mean" and "std" of the states, (S,) each, "env_id", "context",
            "return_scale" and "best_return", and perhaps more (`OPTIONAL`), as in the spec of an `Adapter`.
    Raises:
        ValueError: for missing `known` values, a configuration without a counterpart, or weights that do not fit.
    """
    adapter = Adapter(*decision_transformer_config(theirs, known))
    load(adapter, state, decision_transformer_table(theirs))
    return adapter


def decision_transformer_config(
    theirs: Mapping[str, Any], known: dict[str, Any]
) -> tuple[ModelConfig, PositionConfig, dict[str, Any]]:
    """Return what builds an adapter of the same shape: model, position and spec.

    Their dropout of tokens and attention weights has no counterpart; it does not affect a trained model.
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
        "max_episode_steps": theirs["max_ep_len"],
        "state_shape": theirs["state_dim"],
        **_bounds(theirs["act_dim"], theirs["action_tanh"], known),
        **_checked(known, theirs["state_dim"]),
    }
    return model, PositionConfig(), spec


def their_config(adapter: Adapter, position: PositionConfig) -> dict[str, Any]:
    """Return the config.json of their model with our function, dropout aside.

    Raises:
        ValueError: for settings without a counterpart.
    """
    c, spec = adapter.config, adapter.spec
    if not isinstance(spec["state_shape"], int):
        raise ValueError("DecisionTransformerModel takes states that are vectors; these are images")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    hidden = round(c.dim * c.mlp_ratio)
    theirs = {
        "model_type": "decision_transformer",
        "architectures": ["DecisionTransformerModel"],
        "state_dim": spec["state_shape"],
        "act_dim": adapter.actions.width,
        "hidden_size": c.dim,
        "max_ep_len": spec["max_episode_steps"],
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
    """Return what their config does not say of our model: `known` of `from_decision_transformer`."""
    mean, std = adapter.mean.tolist(), (adapter.std.double() - 1e-6).tolist()  # those of the weights
    return {name: adapter.spec[name] for name in (*KNOWN, *OPTIONAL) if name in adapter.spec} | {
        "mean": mean,
        "std": std,
    }


def their_state(adapter: Adapter, theirs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return all weights of their model, given its configuration. Those without a counterpart are 0, and unused."""
    plain = deepcopy(adapter)
    plain.return_head = None  # theirs has no return head
    C, S = theirs["hidden_size"], theirs["state_dim"]
    shapes = {"encoder.wte": (1, C), "predict_state": (S, C), "predict_return": (1, C)}
    empty = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    empty |= {"predict_state.bias": torch.zeros(S), "predict_return.bias": torch.zeros(1)}
    return export_state_dict(plain.cpu(), decision_transformer_table(theirs)) | empty


def decision_transformer_table(theirs: Mapping[str, Any]) -> Table:
    """Return the table of weight names for a model of this configuration."""
    theirs = DEFAULTS | dict(theirs)
    table = [
        *_pair("embed_return", "embed_return"),
        *_pair("embed_state", "embed_state"),
        *_pair("encoder.ln_f", "transformer.norm"),
        *_pair("predict_action.0", "action_head"),
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
    """Return the rows for weight and bias of a layer."""
    return Row(f"{theirs}.weight", f"{ours}.weight", *weight), Row(f"{theirs}.bias", f"{ours}.bias")


def _same_place(positions: int) -> Transform:
    """Fold GPT-2's position embedding into the norm's bias: all their tokens have position 0, added after the norm.

    Source: transformers' issue 17946.
    """
    return Transform(
        lambda theirs: [theirs[0] + theirs[1][0]],  # (C,) and (positions, C)
        lambda ours: [ours[0], ours[0].new_zeros(positions, len(ours[0]))],
    )


def _bounds(width: int, tanh: bool, known: dict[str, Any]) -> dict[str, Any]:
    """Return the spec's description of actions: vectors behind a tanh, or as many discrete actions as logits."""
    if tanh and "num_actions" not in known:
        return {"low": [-1.0] * width, "high": [1.0] * width}
    if tanh or known.get("num_actions") != width:
        raise ValueError(
            f"act_dim={width} and action_tanh={tanh} with known num_actions={known.get('num_actions')} cannot be"
            " imported; possible: action_tanh=True for vectors, or action_tanh=False and"
            f" known={{num_actions: {width}}} for numbers"
        )
    return {"num_actions": width}


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
