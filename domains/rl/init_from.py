"""Initialization from the weights of another run."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domains.rl.adapter import Adapter


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of another run, rescaled so that states and returns keep their scale.

    The mean and deviation of the states are taken from the run. Returns are in units of the largest return in the data,
    and the new data may have another one. Between different environments, neither is transferred.

    Args:
        adapter: the model to initialize.
        state: the weights of the run.
        spec: the spec of its data.
    """
    if spec["env_id"] != adapter.spec["env_id"]:
        return {name: weight for name, weight in state.items() if name not in ("mean", "std")}
    before, now = (np.array(known.get("offset") or 0.0) for known in (spec, adapter.spec))
    if (moved := before - now).any():  # the new states have another offset
        state = state | {
            "mean": (state["mean"].double() + torch.from_numpy(np.atleast_1d(moved))).to(state["mean"].dtype)
        }
    ratio = adapter.spec["return_scale"] / spec["return_scale"]
    scales = {"embed_return.weight": ratio, "return_head.2.weight": 1 / ratio, "return_head.2.bias": 1 / ratio}
    return {name: weight * scales.get(name, 1.0) for name, weight in state.items()}
