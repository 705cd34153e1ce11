"""Actors that Stable-Baselines3 saved, as the plain arrays of `domains.rl.policies.Network`.

Neither is the package needed, nor is anything unpickled: a saved model is a zip with the weights beside a description.
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

# The names of an actor's layers, what is between them unless told, and what follows for numbers and for vectors.
ACTORS = (
    (r"(mlp_extractor\.policy_net\.\d+|action_net)", "tanh", "argmax", "clip"),  # PPO, A2C, TRPO
    (r"actor\.(latent_pi\.\d+|mu(\.\d+)?)", "relu", None, "tanh"),  # SAC, TQC, TD3, DDPG
    (r"q_net\.q_net\.\d+", "relu", "argmax", None),  # DQN
    (r"quantile_net\.quantile_net\.\d+", "relu", "argmax_q", None),  # QR-DQN
)
PLAYERS = "PPO, A2C, TRPO, SAC, TQC, TD3, DDPG, DQN, QR-DQN"
FAULTS = (OSError, EOFError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, RecursionError)
FAULTS += (UnpicklingError, BadZipFile, zlib.error)
ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "Identity": "none"}


def read_baselines3(path: Path, *, discrete: bool) -> dict[str, Any]:
    """The arrays of the deterministic actor in a zip that `model.save` of Stable-Baselines3 wrote.

    Statistics of VecNormalize lie in a file of their own, and are not read.

    Args:
        path: of the zip.
        discrete: are actions numbers?
    Raises:
        ValueError: for a file that is none, or an actor that is no perceptron.
    """
    try:
        with ZipFile(path) as file:
            check_room(sum(file.getinfo(name).file_size for name in ("policy.pth", "data")), "it")
            state = torch.load(io.BytesIO(file.read("policy.pth")), map_location="cpu", weights_only=True)
            about = json.loads(file.read("data"))
        if not isinstance(state, dict) or not isinstance(about, dict):
            raise ValueError("its weights or their description have no names")
        kwargs = about.get("policy_kwargs") or {}
        if not isinstance(kwargs, dict):
            raise ValueError("its policy_kwargs have no names")
    except FAULTS as error:
        why = (str(error).splitlines() or ["it is cut short"])[0]
        raise ValueError(f"policy={path} is no model that Stable-Baselines3 saved ({why})") from error
    for layers, usual, number, vector in ACTORS:
        act, out = usual, number if discrete else vector
        found = [
            match[1] for name in state if (match := re.fullmatch(rf"({layers})\.weight", str(name)))
        ]  # in their order
        if found and out:
            break
    else:
        raise ValueError(f"policy={path} has no actor for such actions; possible: MlpPolicy of {PLAYERS}")
    if any("lstm" in str(name) for name in state):
        raise ValueError(f"policy={path} remembers (LSTM), which is not read; possible: MlpPolicy of {PLAYERS}")
    if any("features_extractor" in str(name) for name in state):
        raise ValueError(f"policy={path} looks at images or at several inputs; possible: MlpPolicy of {PLAYERS}")
    if blind := [name for name in found if f"{name}.bias" not in state]:
        raise ValueError(f"policy={path} has no bias in {', '.join(blind)}; possible: MlpPolicy of {PLAYERS}")
    if strange := [name for name in found for part in ("weight", "bias") if not _real(state[f"{name}.{part}"])]:
        raise ValueError(f"policy={path} has {strange[0]} that is no array of real numbers")
    if kwargs.get("squash_output"):  # of PPO and A2C with use_sde
        out = "tanh"
    if (clip := kwargs.get("clip_mean", 2.0)) != 2:
        raise ValueError(f"policy={path} has clip_mean={clip}; possible: 2.0, the default")
    if chosen := kwargs.get("activation_fn"):  # as text, such as <class 'torch.….ReLU'>
        name = str(chosen).rsplit(".", 1)[-1].rstrip("'>")
        if name not in ACTIVATIONS:
            raise ValueError(f"policy={path} has activation_fn={name}; possible: {', '.join(ACTIVATIONS)}")
        act = ACTIVATIONS[name]
    arrays: dict[str, Any] = {"n_layers": len(found), "act": act, "out": out}
    arrays["sde"] = out == "tanh" and bool(about.get("use_sde")) and not kwargs.get("squash_output")
    for n, name in enumerate(found):
        arrays |= {f"{part[0]}{n}": state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias")}
    return arrays


def _real(weight: Any) -> bool:
    return isinstance(weight, torch.Tensor) and weight.layout is torch.strided and weight.dtype.is_floating_point
