"""What configures the protein domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum

from core.config import TransformerConfig


class Source(Enum):
    bundled = "bundled"  # a few hundred PDB chains that come with the project


@dataclass
class DataConfig:
    """Which chains, and how much of each the model sees at once."""

    domain: str = "protein"
    source: Source = Source.bundled
    crop: int = 64  # residues a training sample
    batch_size: int = 16
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    """Residue-pair attention."""

    domain: str = "protein"
