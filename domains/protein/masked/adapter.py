"""The masked protein language model, built from the training configuration."""

from typing import Any

from core.config import PositionConfig
from domains.protein.language import LanguageModel
from domains.protein.masked.config import ModelConfig


class Adapter(LanguageModel):
    """A LanguageModel. It does not use the `spec` of the data, as all share one alphabet."""

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__(config, position)
