"""What configures the text domain: plain dataclasses, free of torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    python_docs = "python_docs"  # pydoc_data.topics: the reference prose inside every CPython


@dataclass
class DataConfig:
    """Which text, and how much of it the model sees at once."""

    domain: str = "text"
    source: Source = Source.python_docs
    context: int = 256  # bytes a sample
    # the orders at which a byte recalls what followed it before (domains/text/memory.py); [] for a plain model
    recall: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 8, 12, 16, 24, 32])
    batch_size: int = 8
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    """A causal language model."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # of a mixer (core/config.py)
    domain: str = "text"
    tied: bool = False  # the embedding is the output head too (Press & Wolf 2017)
