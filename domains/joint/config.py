"""The configuration of one core for several domains: plain dataclasses without torch."""

from dataclasses import dataclass, field
from typing import ClassVar

from core.config import PositionConfig, TransformerConfig
from domains.protein.config import DataConfig as ProteinData
from domains.protein.config import ModelConfig as ProteinModel
from domains.rl.config import DataConfig as RlData
from domains.rl.config import ModelConfig as RlModel
from domains.text.config import DataConfig as TextData
from domains.text.config import ModelConfig as TextModel
from domains.vision.config import DataConfig as VisionData
from domains.vision.config import ModelConfig as VisionModel

DOMAINS = ("vision", "protein", "rl", "text")


@dataclass
class DataConfig:
    """The data of each domain, as it has them alone. A step takes a batch of each."""

    domain: str = "joint"
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(DOMAINS, 1.0))  # of losses; 0: left out
    vision: VisionData = field(default_factory=VisionData)
    protein: ProteinData = field(default_factory=ProteinData)
    rl: RlData = field(default_factory=RlData)
    text: TextData = field(default_factory=TextData)


@dataclass
class Positions:
    """The position encoding of each domain."""

    vision: PositionConfig = field(default_factory=PositionConfig)
    protein: PositionConfig = field(default_factory=PositionConfig)
    rl: PositionConfig = field(default_factory=PositionConfig)
    text: PositionConfig = field(default_factory=PositionConfig)


@dataclass
class ModelConfig(TransformerConfig):
    """The shared core, and the adapter of each domain: what describes a core must be there as it is here."""

    needs: ClassVar[frozenset[str]] = frozenset({"full", "causal", "padding", "bias"})  # of a mixer (core/config.py)
    domain: str = "joint"
    positions: Positions = field(default_factory=Positions)
    vision: VisionModel = field(default_factory=VisionModel)
    protein: ProteinModel = field(default_factory=ProteinModel)
    rl: RlModel = field(default_factory=RlModel)
    text: TextModel = field(default_factory=TextModel)
