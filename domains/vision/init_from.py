"""What a vision model can begin with of another one's weights.

Shapes: h, w patches along a side · C token width
"""

from math import sqrt
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from domains.vision.adapter import Adapter

TABLES = ("transformer.position.table", "transformer.position.table.table")  # alone, and beside a rotation


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of another run, learned positions resampled to this model's grid; no head of other classes.

    Mean and deviation of the pixels come along: the weights were trained with those.

    Args:
        adapter: the model that shall start.
        state: the weights of the run.
        spec: of its data.
    """
    if spec.get("classes") != adapter.classes:
        state = {name: weight for name, weight in state.items() if not name.startswith("classify.")}
    for name in set(TABLES) & set(state):
        places = state.pop(name)
        Y, X = spec["size"]
        p = round(sqrt(Y * X / len(places)))
        state[name] = resampled(places, (Y // p, X // p), adapter.grid)
    return state


def resampled(places: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table (h·w, C) of learned positions for another grid: bicubic, as Dosovitskiy et al. 2020 (3.2) and timm do."""
    if old == new:
        return places
    image = places.float().T.unflatten(1, old)[None]  # (1, C, h, w)
    image = F.interpolate(image, new, mode="bicubic", antialias=True)
    return image[0].flatten(1).T.to(places.dtype)
