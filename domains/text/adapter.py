"""A causal language model on the shared core.

Shapes: B batch · L tokens · C width · V vocabulary · O orders of recall
"""

from copy import deepcopy
from dataclasses import replace
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import PositionConfig
from core.layers import Transformer
from core.masks import Causal, Documents
from core.positions import make_position
from domains.adapter import Batch, DomainAdapter, Loss, Tokens
from domains.text.config import ModelConfig
from domains.text.data import IGNORED
from domains.text.lora import attach, merge
from domains.text.ngram_lookup import NOTHING
from domains.text.tokenizers import load

BYTES = 256  # the vocabulary of a text without another tokenizer


class Adapter(DomainAdapter):
    """Predicts the next token. A token is the sum of its own vector and of one vector for what each order recalls.

    Args:
        config: sizes and choices.
        position: how tokens know where they are.
        spec: {"context", "vocabulary", "tokenizer", "orders", "memory"} of the data. V is 256, of bytes, if it is not
            there; without a tokenizer for another V nothing is measured in bytes. The memory is the text that new text
            is matched with.
    Attributes:
        tokenizer: None if there is none.
    Raises:
        ValueError: for orders of recall with another vocabulary than bytes, a tokenizer of more tokens than V, or a
            softcap that is not positive.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.context, self.orders = config, spec["context"], spec["orders"]
        self.vocabulary, self.memory = spec.get("vocabulary", BYTES), spec["memory"].encode("latin-1")
        known = spec.get("tokenizer") or ({"kind": "bytes"} if self.vocabulary == BYTES else None)
        self.tokenizer = load(known) if known else None
        self.metric_names = ("bits_per_byte", "loss") if known else ("loss",)
        if self.orders and known != {"kind": "bytes"}:
            raise ValueError(f"only bytes can be recalled, not a vocabulary of {self.vocabulary}; set data.recall=[]")
        if self.tokenizer and self.tokenizer.size > self.vocabulary:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.size} tokens and the model's vocabulary {self.vocabulary}: they "
                "are not of one model; give the tokenizer that it was trained with"
            )
        if config.softcap is not None and config.softcap <= 0:
            raise ValueError(f"model.softcap={config.softcap} must be positive; null leaves scores as they are")
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
        if config.gpt2_init:
            _as_gpt2(self)
        self.widths: Tensor  # (V,): bytes that a token stands for
        widths = torch.from_numpy(self.tokenizer.widths()) if self.tokenizer else torch.empty(0)
        self.register_buffer("widths", widths, persistent=False)
        if config.lora is not None:
            attach(self.requires_grad_(False).transformer.blocks, config.lora)

    def merged(self) -> "Adapter":
        """A copy with plain layers in place of low-rank adapters (domains/text/lora.py)."""
        copy = deepcopy(self).requires_grad_(True)
        merge(copy.transformer.blocks)
        copy.config = replace(self.config, lora=None)
        return copy

    def tokens(self, batch: Batch) -> Tokens:
        x = self.embed(batch["tokens"])  # (B, L, C)
        if self.orders:
            row = torch.arange(len(self.orders), device=self.device) * (NOTHING + 1)
            x = x + self.recall(batch["recalled"] + row).sum(-2)  # of (B, L, O, C)
        mask = Causal() & Documents(batch["documents"]) if "documents" in batch else Causal()
        return Tokens(x, mask=mask, positions=batch["places"][..., None] if "places" in batch else None)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        table = self.embed if self.config.tied else self.next
        scores = F.linear(hidden, table.weight)  # (B, L, V)
        cap = self.config.softcap
        if cap is None:
            return scores
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))  # half precision is coarse near the cap
        return cap * (wide / cap).tanh()

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        targets = batch["targets"].flatten()
        total = F.cross_entropy(predictions.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")
        return Loss.of(total, (targets != IGNORED).sum())

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Nats of each token, and bits of each byte: a token's, shared among its bytes."""
        targets = batch["targets"].flatten()
        counts = targets != IGNORED
        targets = targets[counts]
        nats = F.cross_entropy(predictions.flatten(0, 1)[counts].float(), targets, reduction="none")
        if self.tokenizer is None:
            return {"loss": nats}
        widths = self.widths[targets]
        return {"bits_per_byte": (nats / log(2) / widths).repeat_interleave(widths), "loss": nats}


def _as_gpt2(adapter: Adapter) -> None:
    """Weights from N(0, 0.02²), biases 0; what is added to the residual stream smaller by √(2 · depth).

    Source: Radford et al. 2019, and nanoGPT for the details.
    """
    for name, p in adapter.named_parameters():
        if p.dim() == 2:
            residual = ".blocks." in name and name.endswith(".out.weight")
            nn.init.normal_(p, std=0.02 / (2 * adapter.config.depth) ** 0.5 if residual else 0.02)
        elif name.endswith(("qkv.bias", "up.bias", "out.bias")):
            nn.init.zeros_(p)
