"""The masked protein language model, as training builds it."""

from typing import Any

from core.config import PositionConfig
from domains.protein.language import LanguageModel
from domains.protein.masked.config import ModelConfig


class Adapter(LanguageModel):
    """A LanguageModel. It takes nothing from the `spec` of its data, for all have one alphabet."""

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__(config, position)
