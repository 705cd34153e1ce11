"""What configures the masked protein language model: plain dataclasses, free of torch."""

from dataclasses import dataclass
from typing import ClassVar

from core.config import TransformerConfig


@dataclass
class DataConfig:
    """Which sequences, and how much of each the model sees at once."""

    domain: str = "protein_language"
    path: str | None = None  # a FASTA file, also as .gz or .xz
    longest: int = 400  # residues of a sample; longer sequences are cut, in training at a random place
    val_share: float = 0.02  # of the sequences; whole clusters of similar ones, where MMseqs2 is installed
    test_share: float = 0.02  # likewise
    batch_size: int = 32  # sequences a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself


@dataclass
class ModelConfig(TransformerConfig):
    """ESM-2's parts, at any size."""

    needs: ClassVar[frozenset[str]] = frozenset({"full", "padding"})  # of a mixer (core/config.py)
    domain: str = "protein_language"
