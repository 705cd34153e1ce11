"""Actors saved by Stable-Baselines3, as the plain arrays of `domains.rl.policies.NetworkController`.

The package is not needed and nothing is unpickled: a saved model is a zip file of weights and a JSON description.
"""

import io
import json
import re
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from domains.archives import check_room

# Names of an actor's layers, default activation, and output function for discrete and for vector actions.
ACTOR_LAYERS = (
    (r"(mlp_extractor\.policy_net\.\d+|action_net)", "tanh", "argmax", "clip"),  # PPO, A2C, TRPO
    (r"actor\.(latent_pi\.\d+|mu(\.\d+)?)", "relu", None, "tanh"),  # SAC, TQC, TD3, DDPG
    (r"q_net\.q_net\.\d+", "relu", "argmax", None),  # DQN
    (r"quantile_net\.quantile_net\.\d+", "relu", "argmax_q", None),  # QR-DQN
)
ALGORITHMS = "PPO, A2C, TRPO, SAC, TQC, TD3, DDPG, DQN, QR-DQN"
READ_ERRORS = (OSError, EOFError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, RecursionError)
READ_ERRORS += (UnpicklingError, BadZipFile, zlib.error)
ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "Identity": "none"}


def read_baselines3(path: Path, *, discrete: bool) -> dict[str, Any]:
    """Read the deterministic actor of a zip file that Stable-Baselines3's `model.save` wrote.

    The statistics of VecNormalize are in another file, and are not read.

    Args:
        path: of the zip file.
        discrete: whether actions are discrete.
    Raises:
        ValueError: for another file, or an actor that is not an MLP.
    """
    try:
        with ZipFile(path) as file:
            check_room(sum(file.getinfo(name).file_size for name in ("policy.pth", "data")), "it")
            state = torch.load(io.BytesIO(file.read("policy.pth")), map_location="cpu", weights_only=True)
            metadata = json.loads(file.read("data"))
        if not isinstance(state, dict) or not isinstance(metadata, dict):
            raise ValueError("its weights or their description have no names")
        kwargs = metadata.get("policy_kwargs") or {}
        if not isinstance(kwargs, dict):
            raise ValueError("its policy_kwargs have no names")
    except READ_ERRORS as error:
        why = (str(error).splitlines() or ["it is cut short"])[0]
        raise ValueError(f"policy={path} is no model that Stable-Baselines3 saved ({why})") from error
    for layers, default_activation, number, vector in ACTOR_LAYERS:
        act, out = default_activation, number if discrete else vector
        layer_names = [
            match[1] for name in state if (match := re.fullmatch(rf"({layers})\.weight", str(name)))
        ]  # in their order
        if layer_names and out:
            break
    else:
        raise ValueError(f"policy={path} has no actor for such actions; possible: MlpPolicy of {ALGORITHMS}")
    if any("lstm" in str(name) for name in state):
        raise ValueError(f"policy={path} remembers (LSTM), which is not read; possible: MlpPolicy of {ALGORITHMS}")
    if any("features_extractor" in str(name) for name in state):
        raise ValueError(f"policy={path} looks at images or at several inputs; possible: MlpPolicy of {ALGORITHMS}")
    if without_bias := [name for name in layer_names if f"{name}.bias" not in state]:
        raise ValueError(f"policy={path} has no bias in {', '.join(without_bias)}; possible: MlpPolicy of {ALGORITHMS}")
    if strange := [name for name in layer_names for part in ("weight", "bias") if not _real(state[f"{name}.{part}"])]:
        raise ValueError(f"policy={path} has {strange[0]} that is no array of real numbers")
    if kwargs.get("squash_output"):  # of PPO and A2C with use_sde
        out = "tanh"
    if (clip := kwargs.get("clip_mean", 2.0)) != 2:
        raise ValueError(f"policy={path} has clip_mean={clip}; possible: 2.0, the default")
    if activation := kwargs.get("activation_fn"):  # a string such as <class 'torch.….ReLU'>
        name = str(activation).rsplit(".", 1)[-1].rstrip("'>")
        if name not in ACTIVATIONS:
            raise ValueError(f"policy={path} has activation_fn={name}; possible: {', '.join(ACTIVATIONS)}")
        act = ACTIVATIONS[name]
    arrays: dict[str, Any] = {"n_layers": len(layer_names), "act": act, "out": out}
    arrays["sde"] = out == "tanh" and bool(metadata.get("use_sde")) and not kwargs.get("squash_output")
    for n, name in enumerate(layer_names):
        arrays |= {f"{part[0]}{n}": state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias")}
    return arrays


def _real(weight: Any) -> bool:
    return isinstance(weight, torch.Tensor) and weight.layout is torch.strided and weight.dtype.is_floating_point
