"""What configures the protein domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    bundled = "bundled"  # 1,000 PDB chains of at most 150 residues that come with the project


@dataclass
class DataConfig:
    """Which chains, and how much of each the model sees at once."""

    domain: str = "protein"
    source: Source = Source.bundled
    crop: int = 64  # residues of a training sample: two stretches of half that length, from anywhere in the chain
    batch_size: int = 8
    workers: int = 0
    sequence_only: float = 0.25  # share of training samples that must do without their profile


@dataclass
class ModelConfig(TransformerConfig):
    """Residue-pair attention: `dim` is the width of a residue, `pair_dim` that of a pair of residues."""

    needs: ClassVar[frozenset[str]] = frozenset({"full", "padding", "bias"})  # of a mixer (core/config.py)
    domain: str = "protein"
    pair_dim: int = 16
    window: int = 7  # a residue's token is made of its neighbourhood, this many residues to each side
    reach: int = 32  # separations in sequence beyond this look alike to the first pair representation
    near_weight: float = 0.1  # weight in the loss of pairs fewer than 6 residues apart, which are easy and say little
