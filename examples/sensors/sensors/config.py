"""What configures the sensors domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from typing import ClassVar

from core.config import TransformerConfig


@dataclass
class DataConfig:
    domain: str = "sensors"
    path: str | None = None  # of CSV files in one sub-folder a class; pendulums if None
    length: int = 64  # steps of a series; what follows is left out
    batch_size: int = 64
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    needs: ClassVar[frozenset[str]] = frozenset({"full"})  # of a mixer: every token sees all others
    domain: str = "sensors"
    piece: int = 4  # steps that make a token
