"""A causal language model on the shared core.

Shapes: B batch · L tokens · C width · V vocabulary · O n-gram orders
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
from domains.text.data import IGNORE_INDEX
from domains.text.lora import add_lora, merge_lora
from domains.text.ngram_lookup import NO_MATCH
from domains.text.tokenizers import load_tokenizer

BYTES = 256  # the vocabulary of a text without another tokenizer


class Adapter(DomainAdapter):
    """Predicts the next token. A token is the sum of its own embedding and one embedding of the n-gram match at each
    order.

    Args:
        config: sizes and choices.
        position: the position encoding.
        spec: {"context", "vocab_size", "tokenizer", "ngram_orders", "ngram_text"} of the data. V is 256, of bytes, if
            missing; without a tokenizer for another V, nothing is measured in bytes. N-gram lookup of new text starts
            from ngram_text.
    Attributes:
        tokenizer: None if there is none.
    Raises:
        ValueError: for n-gram lookup with another vocabulary than bytes, a tokenizer of more tokens than V, or a
            softcap that is not positive.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.context, self.ngram_orders = config, spec["context"], spec["ngram_orders"]
        self.vocab_size, self.ngram_text = spec.get("vocab_size", BYTES), spec["ngram_text"].encode("latin-1")
        tokenizer_spec = spec.get("tokenizer") or ({"kind": "bytes"} if self.vocab_size == BYTES else None)
        self.tokenizer = load_tokenizer(tokenizer_spec) if tokenizer_spec else None
        self.metric_names = ("bits_per_byte", "loss") if tokenizer_spec else ("loss",)
        if self.ngram_orders and tokenizer_spec != {"kind": "bytes"}:
            raise ValueError(
                f"n-gram lookup needs bytes, not a vocabulary of {self.vocab_size}; set data.ngram_lookup=[]"
            )
        if self.tokenizer and self.tokenizer.vocab_size > self.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocab_size} tokens and the model's vocabulary {self.vocab_size}: "
                "they are not of one model; give the tokenizer that it was trained with"
            )
        if config.softcap is not None and config.softcap <= 0:
            raise ValueError(f"model.softcap={config.softcap} must be positive; null leaves logits as they are")
        self.embed = nn.Embedding(self.vocab_size, config.dim)
        if self.ngram_orders:
            self.ngram_embed = nn.Embedding(len(self.ngram_orders) * (NO_MATCH + 1), config.dim)
        # GPT-2's; or a sum of variance 1:
        std = 0.02 if config.tie_word_embeddings else (1 + len(self.ngram_orders)) ** -0.5
        for table in self.parameters():
            nn.init.normal_(table, std=std)
        self.transformer = Transformer(config, make_position(position, config, (self.context,)))
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.dim, self.vocab_size, bias=False)
            nn.init.zeros_(self.lm_head.weight)  # training starts from log V: 8 bits a byte
        if config.gpt2_init:
            _init_as_gpt2(self)
        self.bytes_per_token: Tensor  # (V,): bytes that a token stands for
        bytes_per_token = torch.from_numpy(self.tokenizer.bytes_per_token()) if self.tokenizer else torch.empty(0)
        self.register_buffer("bytes_per_token", bytes_per_token, persistent=False)
        if config.lora_rank is not None:
            add_lora(self.requires_grad_(False).transformer.blocks, config.lora_rank)

    def merged(self) -> "Adapter":
        """Return a copy with plain layers in place of low-rank adapters (domains/text/lora.py)."""
        copy = deepcopy(self).requires_grad_(True)
        merge_lora(copy.transformer.blocks)
        copy.config = replace(self.config, lora_rank=None)
        return copy

    def tokens(self, batch: Batch) -> Tokens:
        x = self.embed(batch["tokens"])  # (B, L, C)
        if self.ngram_orders:
            row = torch.arange(len(self.ngram_orders), device=self.device) * (NO_MATCH + 1)
            x = x + self.ngram_embed(batch["ngram_matches"] + row).sum(-2)  # of (B, L, O, C)
        mask = Causal() & Documents(batch["documents"]) if "documents" in batch else Causal()
        return Tokens(x, mask=mask, positions=batch["positions"][..., None] if "positions" in batch else None)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        table = self.embed if self.config.tie_word_embeddings else self.lm_head
        logits = F.linear(hidden, table.weight)  # (B, L, V)
        cap = self.config.softcap
        if cap is None:
            return logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision is coarse near the cap
        return cap * (wide / cap).tanh()

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        targets = batch["targets"].flatten()
        total = F.cross_entropy(predictions.flatten(0, 1), targets, ignore_index=IGNORE_INDEX, reduction="sum")
        return Loss.of(total, (targets != IGNORE_INDEX).sum())

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return nats per token, and bits per byte: a token's bits, shared evenly among its bytes."""
        targets = batch["targets"].flatten()
        predicted = targets != IGNORE_INDEX
        targets = targets[predicted]
        nats = F.cross_entropy(predictions.flatten(0, 1)[predicted].float(), targets, reduction="none")
        if self.tokenizer is None:
            return {"loss": nats}
        token_bytes = self.bytes_per_token[targets]
        return {"bits_per_byte": (nats / log(2) / token_bytes).repeat_interleave(token_bytes), "loss": nats}


def _init_as_gpt2(adapter: Adapter) -> None:
    """Draw weights from N(0, 0.02²), biases 0; layers that write to the residual stream smaller by √(2 · depth).

    Source: Radford et al. 2019, and nanoGPT for the details.
    """
    for name, p in adapter.named_parameters():
        if p.dim() == 2:
            residual = ".blocks." in name and name.endswith(".out.weight")
            nn.init.normal_(p, std=0.02 / (2 * adapter.config.depth) ** 0.5 if residual else 0.02)
        elif name.endswith(("qkv.bias", "up.bias", "out.bias")):
            nn.init.zeros_(p)
