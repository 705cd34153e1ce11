"""What configures the text domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum

from core.config import TransformerConfig


class Source(Enum):
    python_docs = "python_docs"  # pydoc_data.topics: the reference prose inside every CPython


@dataclass
class DataConfig:
    """Which text, and how much of it the model sees at once."""

    domain: str = "text"
    source: Source = Source.python_docs
    context: int = 256  # tokens a sample
    batch_size: int = 16
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    """A causal language model."""

    domain: str = "text"
