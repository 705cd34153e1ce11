"""Configuration of a masked autoencoder: plain dataclasses, free of torch."""

from dataclasses import dataclass, field

from core.config import TransformerConfig
from domains.vision import config as vision
from domains.vision.config import DataConfig as DataConfig


@dataclass
class ModelConfig(vision.ModelConfig):
    """A ViT that encodes some of the patches, and a smaller Transformer that reconstructs the others."""

    mask_ratio: float = 0.75  # share of the patches that are masked
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(dim=32, depth=1, num_heads=4))
