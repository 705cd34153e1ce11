"""What configures the rl domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum

from core.config import TransformerConfig


class Source(Enum):
    cartpole = "cartpole"  # CartPole-v1, collected on the spot from scripted controllers


@dataclass
class DataConfig:
    """Which trajectories, and how much of each the model sees at once."""

    domain: str = "rl"
    source: Source = Source.cartpole
    context: int = 20  # time steps a sample
    batch_size: int = 16
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    """A decision transformer."""

    domain: str = "rl"
