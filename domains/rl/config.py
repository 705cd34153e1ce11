"""What configures the rl domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    cartpole = "cartpole"  # Gymnasium's CartPole-v1, played on the spot by scripted controllers of mixed skill


@dataclass
class DataConfig:
    """Which trajectories, and how much of one the model sees at once."""

    domain: str = "rl"
    source: Source = Source.cartpole
    episodes: int = 600  # collected, for the three splits together
    context: int = 10  # time steps in a sample, and in the memory of the agent
    batch_size: int = 64
    workers: int = 0


@dataclass
class ModelConfig(TransformerConfig):
    """A decision transformer; all of its sizes are those of its trunk."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # of a mixer (core/config.py)
    domain: str = "rl"
    embed_norm: bool = True
