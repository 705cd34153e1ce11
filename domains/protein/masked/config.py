"""The configuration of the masked protein language model: plain dataclasses, without torch."""

from dataclasses import dataclass
from typing import ClassVar

from core.config import TransformerConfig


@dataclass
class DataConfig:
    """The sequences, and how the model sees them."""

    domain: str = "protein_language"
    path: str | None = None  # a FASTA file, also as .gz or .xz
    max_length: int = 400  # residues of a sample; longer sequences are cut, in training at a random place
    val_share: float = 0.02  # of the sequences; whole clusters of similar ones, where MMseqs2 is installed
    test_share: float = 0.02  # likewise
    batch_size: int = 32  # sequences per training step, over all devices
    workers: int = 0  # processes that prepare batches; 0: in the training process


@dataclass
class ModelConfig(TransformerConfig):
    """ESM-2's architecture, at any size."""

    needs: ClassVar[frozenset[str]] = frozenset(
        {"full", "padding"}
    )  # capabilities that the mixer needs (core/config.py)
    domain: str = "protein_language"
