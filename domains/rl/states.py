"""The states: vectors, or images.

Shapes: B batch · K time steps · Y, X pixels · h, w patches along a side · c channels · C token width
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from domains.patches import conv_stem

StateShape = int | list[int]  # width of a vector; or shape of an image, (Y, X), (Y, X, c) or (c, Y, X)


def shape_and_dtype(states: StateShape) -> tuple[tuple[int, ...], type]:
    """Return the shape and the dtype of a state: images are bytes."""
    return ((states,), np.float32) if isinstance(states, int) else (tuple(states), np.uint8)


def to_state_shape(shape: Sequence[int]) -> StateShape:
    """Return an array shape as `StateShape`: the inverse of `shape_and_dtype`."""
    return shape[0] if len(shape) == 1 else list(shape)


def format_state_shape(states: StateShape) -> str:
    """Return a state's size as text for messages."""
    return f"{states} numbers" if isinstance(states, int) else f"{'×'.join(map(str, states))} pixels"


class ImageEmbedding(nn.Module):
    """Embed an image as one token: the patches of a convolutional stem, concatenated and projected.

    Args:
        shape: of an image: (Y, X); or with channels, which are the shorter of the first and the last axis.
        dim: C.
        patch_size: in pixels.
    Raises:
        ValueError: if the patch size is not a power of 2, or the width cannot be halved that often.
    """

    def __init__(self, shape: Sequence[int], dim: int, patch_size: int):
        super().__init__()
        self.channels_first = len(shape) == 3 and shape[0] < shape[-1]  # where channels stand
        Y, X = shape[1:] if self.channels_first else shape[:2]
        channels = 1 if len(shape) == 2 else shape[0 if self.channels_first else -1]
        self.stem = conv_stem(channels, dim, patch_size)
        self.proj = nn.Linear(dim * ceil(Y / patch_size) * ceil(X / patch_size), dim)

    def forward(self, images: Float[Tensor, "B K *shape"]) -> Float[Tensor, "B K C"]:
        x = images.flatten(0, 1)
        x = x[:, None] if x.dim() == 3 else x if self.channels_first else x.movedim(-1, 1)  # (B·K, c, Y, X)
        return self.proj(self.stem(x).flatten(1)).unflatten(0, images.shape[:2])
