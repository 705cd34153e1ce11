"""What a model can begin with of another run's weights."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domains.rl.adapter import Adapter


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of another run, rescaled so that the same states and returns mean the same.

    They bring the mean and the deviation of the states along. Returns are counted in parts of the largest one in the
    data, and new data may have a larger one. Of another environment, neither means anything.

    Args:
        adapter: the model that shall start.
        state: the weights of the run.
        spec: of its data.
    """
    if spec["environment"] != adapter.spec["environment"]:
        return {name: weight for name, weight in state.items() if name not in ("mean", "std")}
    before, now = (np.array(known.get("offset") or 0.0) for known in (spec, adapter.spec))
    if (moved := before - now).any():  # states come without another offset
        state = state | {
            "mean": (state["mean"].double() + torch.from_numpy(np.atleast_1d(moved))).to(state["mean"].dtype)
        }
    ratio = adapter.spec["return_scale"] / spec["return_scale"]
    scales = {"embed_return.weight": ratio, "hope.2.weight": 1 / ratio, "hope.2.bias": 1 / ratio}
    return {name: weight * scales.get(name, 1.0) for name, weight in state.items()}
