"""The weights of another run that a vision model can begin with.

Shapes: h, w patches along a side · C token width
"""

from math import sqrt
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from domains.vision.adapter import Adapter

POSITION_TABLES = ("transformer.position.table", "transformer.position.table.table")  # alone, and beside a rotation


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of another run, learned positions resampled to this model's grid; without a head of other
    classes.

    Mean and standard deviation of the pixels are kept: the weights were trained with them.

    Args:
        adapter: the model to initialise.
        state: the weights of the run.
        spec: of its data.
    """
    if spec.get("classes") != adapter.classes:
        state = {name: weight for name, weight in state.items() if not name.startswith("classifier.")}
    for name in set(POSITION_TABLES) & set(state):
        table = state.pop(name)
        Y, X = spec["size"]
        p = round(sqrt(Y * X / len(table)))
        state[name] = resample_positions(table, (Y // p, X // p), adapter.grid)
    return state


def resample_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample a table (h·w, C) of learned positions to another grid: bicubic, as in Dosovitskiy et al. 2020 (3.2) and
    timm."""
    if old == new:
        return table
    image = table.float().T.unflatten(1, old)[None]  # (1, C, h, w)
    image = F.interpolate(image, new, mode="bicubic", antialias=True)
    return image[0].flatten(1).T.to(table.dtype)
