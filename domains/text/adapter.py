"""A causal language model on the shared core.

Shapes: B batch · L tokens · C width · V vocabulary · O orders of recall
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
from domains.text.data import BYTES, IGNORED
from domains.text.memory import NOTHING


class Adapter(DomainAdapter):
    """Predicts the next token. A token is the sum of its own vector and of one vector for what each order recalls.

    Args:
        config: sizes and choices.
        position: how tokens know where they are.
        spec: {"context", "vocabulary", "orders", "memory"} of the data: V is 256, of bytes, if it is not there; the
            memory is the text that new text is matched with.
    Raises:
        ValueError: for orders of recall with another vocabulary than bytes.
    """

    measures = ("bits_per_byte", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.context, self.orders = config, spec["context"], spec["orders"]
        self.vocabulary, self.memory = spec.get("vocabulary", BYTES), spec["memory"].encode("latin-1")
        if self.orders and self.vocabulary != BYTES:
            raise ValueError(f"only bytes can be recalled, not a vocabulary of {self.vocabulary}; set data.recall=[]")
        self.embed = nn.Embedding(self.vocabulary, config.dim)
        if self.orders:
            self.recall = nn.Embedding(len(self.orders) * (NOTHING + 1), config.dim)
        std = 0.02 if config.tied else (1 + len(self.orders)) ** -0.5  # GPT-2's; a sum of variance 1
        for table in self.parameters():
            nn.init.normal_(table, std=std)
        self.transformer = Transformer(config, make_position(position, config, (self.context,)))
        if not config.tied:
            self.next = nn.Linear(config.dim, self.vocabulary, bias=False)
            nn.init.zeros_(self.next.weight)  # training starts from log V: 8 bits a byte
        self.register_load_state_dict_pre_hook(_of_version_0_1)

    def tokens(self, batch: Batch) -> Tokens:
        x = self.embed(batch["tokens"])  # (B, L, C)
        if self.orders:
            row = torch.arange(len(self.orders), device=self.device) * (NOTHING + 1)
            x = x + self.recall(batch["recalled"] + row).sum(-2)  # of (B, L, O, C)
        return Tokens(x, mask=Causal())

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        table = self.embed if self.config.tied else self.next
        return F.linear(hidden, table.weight)  # (B, L, V)

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(predictions.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED)

    def measure(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        targets = batch["targets"].flatten()
        counts = targets != IGNORED
        nats = F.cross_entropy(predictions.flatten(0, 1)[counts].float(), targets[counts], reduction="none")
        return {"bits_per_byte": nats / log(2), "loss": nats}


def _of_version_0_1(adapter: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename its weights: the embedding was called `byte`, and there was a table for recall even without any."""
    assert isinstance(adapter, Adapter)
    if f"{prefix}byte.weight" in state:
        state[f"{prefix}embed.weight"] = state.pop(f"{prefix}byte.weight")
        if not adapter.orders:
            del state[f"{prefix}recall.weight"]
