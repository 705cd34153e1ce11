"""Augmentation of training images, each with a random generator of its own.

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

MAX_DEGREES = 10
MAX_LOG_SCALE = 0.1
MAX_TRANSLATION = 1  # pixels


def augment(images: Tensor, kind: Augment, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Augment images (B, C, Y, X) in [0, 1], with a generator for each."""
    match kind:
        case Augment.none:
            return images
        case Augment.affine:
            return random_affine(images, rngs)
        case Augment.crop:
            return random_crop_flip(images, rngs)
        case Augment.rand:
            return rand_augment(images, rngs)


def random_affine(images: Tensor, rngs: Iterator[np.random.Generator] | Sequence[np.random.Generator]) -> Tensor:
    """Rotate, scale and translate half of the images a little; the border is repeated."""
    B, _, Y, X = images.shape
    strength = np.zeros((B, 4), np.float32)
    for row, rng in zip(strength, rngs, strict=True):
        if rng.random() < 0.5:
            row[:] = rng.uniform(-1, 1, 4)
    angle, scale = np.deg2rad(MAX_DEGREES) * strength[:, 0], np.exp(MAX_LOG_SCALE * strength[:, 1])
    dx = 2 * MAX_TRANSLATION * strength[:, 2] / X  # affine_grid counts an image as 2 wide
    dy = 2 * MAX_TRANSLATION * strength[:, 3] / Y
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    theta = torch.from_numpy(np.stack([cos, -sin, dx, sin, cos, dy], -1).reshape(B, 2, 3).astype(np.float32))
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_crop_flip(images: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Flip at random, and shift by up to an eighth of the side; the padding is black (He et al. 2016)."""
    B, _, Y, X = images.shape
    max_shift = max(1, Y // 8)
    draws = np.array([[rng.integers(2), *rng.integers(0, 2 * max_shift + 1, 2)] for rng in rngs])  # (B, 3)
    flip, dy, dx = torch.from_numpy(draws).view(B, 3, 1, 1, 1).unbind(1)  # (B, 1, 1, 1) each
    rows = dy + torch.arange(Y).view(-1, 1)  # (B, 1, Y, 1)
    columns = torch.arange(X)
    columns = dx + torch.where(flip.bool(), X - 1 - columns, columns)  # (B, 1, 1, X)
    padded = F.pad(images, (max_shift, max_shift, max_shift, max_shift))
    return padded[torch.arange(B).view(-1, 1, 1, 1), torch.arange(images.shape[1]).view(1, -1, 1, 1), rows, columns]


def rand_augment(images: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Apply timm's training transform, with crops mild enough for small images."""
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
    transformed = []
    for image, rng in zip(images, rngs, strict=True):
        with global_rngs_from(rng):
            transformed.append(transform(to_pil_image(image)))
    return torch.stack(transformed)


def mixup_cutmix(batch: Batch, classes: int, mixup: float, cutmix: float, rng: np.random.Generator) -> Batch:
    """Mix pairs of images, and return targets (B, K) with the share of each.

    Raises:
        ValueError: for an odd number of images.
    """
    from timm.data import Mixup  # pyright: ignore[reportPrivateImportUsage]

    if (B := len(batch["labels"])) % 2:
        raise ValueError(f"data.mixup and data.cutmix mix pairs, not {B} images; give each process an even batch")
    mix = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=classes)
    with global_rngs_from(rng):
        images, targets = mix(batch["images"].clone(), batch["labels"])
    return batch | {"images": images, "targets": targets}


@contextmanager
def global_rngs_from(rng: np.random.Generator):
    """Seed the global generators of Python, numpy and torch from `rng`, and restore them at the end."""
    seed = int(rng.integers(2**32))
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
