"""A causal language model on the shared core.

Shapes: B batch · L bytes · C width · O orders of recall
"""

from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import PositionConfig
from core.layers import Transformer
from core.masks import Causal
from core.positions import make_position
from domains.adapter import Batch, DomainAdapter, Tokens
from domains.text.config import ModelConfig
from domains.text.data import IGNORED
from domains.text.memory import NOTHING


class Adapter(DomainAdapter):
    """Bytes as tokens: a token is the sum of its byte's vector and of one vector for what each order recalls.

    Args:
        config: sizes and choices.
        position: how bytes know where they are.
        spec: {"context", "orders", "memory"} of the data; the memory is the text that new text is matched with.
    """

    measures = ("bits_per_byte", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.context, self.orders = config, spec["context"], spec["orders"]
        self.memory = spec["memory"].encode("latin-1")
        self.byte = nn.Embedding(256, config.dim)
        self.recall = nn.Embedding(max(1, len(self.orders)) * (NOTHING + 1), config.dim)
        for table in (self.byte, self.recall):
            nn.init.normal_(table.weight, std=(1 + len(self.orders)) ** -0.5)  # their sum has variance 1
        self.transformer = Transformer(config, make_position(position, config, (self.context,)))
        self.next = nn.Linear(config.dim, 256, bias=False)
        nn.init.zeros_(self.next.weight)  # training starts from 8 bits a byte

    def tokens(self, batch: Batch) -> Tokens:
        row = torch.arange(len(self.orders), device=self.device) * (NOTHING + 1)
        recalled = self.recall(batch["recalled"] + row)  # (B, L, O, C)
        return Tokens(self.byte(batch["bytes"]) + recalled.sum(-2), mask=Causal())  # (B, L, C)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        return self.next(hidden)  # (B, L, 256)

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(predictions.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED)

    def measure(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        targets = batch["targets"].flatten()
        counts = targets != IGNORED
        nats = F.cross_entropy(predictions.flatten(0, 1)[counts].float(), targets[counts], reduction="none")
        return {"bits_per_byte": nats / log(2), "loss": nats}
