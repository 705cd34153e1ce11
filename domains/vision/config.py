"""What configures the vision domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    digits = "digits"  # scikit-learn's 1,797 handwritten digits, 8×8 pixels


@dataclass
class DataConfig:
    """Which images, and how they are shown to the model."""

    domain: str = "vision"
    source: Source = Source.digits
    batch_size: int = 64
    workers: int = 0
    augment: bool = True  # turn, scale and move training images a little


class Pool(Enum):
    """What stands for the whole image."""

    mean = "mean"  # of the patches, each normalised
    mean_then_norm = "mean_then_norm"  # timm's fc_norm
    token = "token"  # the class token


@dataclass
class ModelConfig(TransformerConfig):
    """A ViT: `patch_size` is the side of a patch in pixels."""

    needs: ClassVar[frozenset[str]] = frozenset({"full"})  # of a mixer (core/config.py)
    domain: str = "vision"
    patch_size: int = 2
    pool: Pool = Pool.mean
    class_token: bool = False
    registers: int = 0  # further tokens that are no patches (Darcet et al. 2024)
    label_smoothing: float = 0.1
