"""What training images go through, each by a random generator of its own.

Shapes: B batch · C channels · Y rows · X columns, in pixels · K classes
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domains.adapter import Batch
from domains.vision.config import Augment

TURN = 10  # degrees
SCALE = 0.1  # log of the factor
MOVE = 1  # pixel


def augmented(images: Tensor, how: Augment, rngs: Sequence[np.random.Generator]) -> Tensor:
    """(B, C, Y, X) in [0, 1], and as many generators."""
    match how:
        case Augment.none:
            return images
        case Augment.affine:
            return distorted(images, rngs)
        case Augment.crop:
            return shifted(images, rngs)
        case Augment.rand:
            return rand_augmented(images, rngs)


def distorted(images: Tensor, rngs: Iterator[np.random.Generator] | Sequence[np.random.Generator]) -> Tensor:
    """Every other image, by chance, turned, scaled and moved a little; the border is repeated."""
    B, _, Y, X = images.shape
    strength = np.zeros((B, 4), np.float32)
    for row, rng in zip(strength, rngs, strict=True):
        if rng.random() < 0.5:
            row[:] = rng.uniform(-1, 1, 4)
    turn, size = np.deg2rad(TURN) * strength[:, 0], np.exp(SCALE * strength[:, 1])
    across, down = 2 * MOVE * strength[:, 2] / X, 2 * MOVE * strength[:, 3] / Y  # an image is 2 wide here
    cos, sin = np.cos(turn) / size, np.sin(turn) / size
    where = torch.from_numpy(np.stack([cos, -sin, across, sin, cos, down], -1).reshape(B, 2, 3).astype(np.float32))
    grid = F.affine_grid(where, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def shifted(images: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Mirrored by chance, and moved by up to an eighth of its side; what comes in is black (He et al. 2016)."""
    B, _, Y, X = images.shape
    most = max(1, Y // 8)
    draws = np.array([[rng.integers(2), *rng.integers(0, 2 * most + 1, 2)] for rng in rngs])  # (B, 3)
    mirror, down, across = torch.from_numpy(draws).view(B, 3, 1, 1, 1).unbind(1)  # (B, 1, 1, 1) each
    rows = down + torch.arange(Y).view(-1, 1)  # (B, 1, Y, 1)
    columns = torch.arange(X)
    columns = across + torch.where(mirror.bool(), X - 1 - columns, columns)  # (B, 1, 1, X)
    padded = F.pad(images, (most, most, most, most))
    return padded[torch.arange(B).view(-1, 1, 1, 1), torch.arange(images.shape[1]).view(1, -1, 1, 1), rows, columns]


def rand_augmented(images: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """timm's training transform, with crops mild enough for small images."""
    from timm.data import create_transform  # pyright: ignore[reportPrivateImportUsage] # here: it takes seconds to load
    from torchvision.transforms.functional import to_pil_image

    C, Y, X = images.shape[1:]
    transform: Any = create_transform(
        (C, Y, X),
        is_training=True,
        scale=(0.6, 1.0),
        auto_augment="rand-m9-mmax9-mstd0.5-inc1",  # beyond 9, timm posterizes to 0 bits, which Pillow refuses
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        mean=(0.0,) * C,
        std=(1.0,) * C,
    )
    changed = []
    for image, rng in zip(images, rngs, strict=True):
        with drawing_from(rng):
            changed.append(transform(to_pil_image(image)))
    return torch.stack(changed)


def mixed(batch: Batch, classes: int, mixup: float, cutmix: float, rng: np.random.Generator) -> Batch:
    """Pairs of images laid over each other, and targets (B, K) that say how much of each is there.

    Raises:
        ValueError: for an odd number of images.
    """
    from timm.data import Mixup  # pyright: ignore[reportPrivateImportUsage]

    if (B := len(batch["labels"])) % 2:
        raise ValueError(f"data.mixup and data.cutmix mix pairs, not {B} images; give each process an even batch")
    mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=classes)
    with drawing_from(rng):
        images, targets = mix(batch["images"].clone(), batch["labels"])
    return batch | {"images": images, "targets": targets}


@contextmanager
def drawing_from(rng: np.random.Generator):
    """What draws from the global generators of Python, numpy and torch draws from `rng`, and they stay as they were."""
    seed = int(rng.integers(2**32))
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
