"""The effect of value embeddings and residual scalars in the modern preset. They are not in the core, because they
do not pay there (docs/text.md).

    python benchmarks/text_extras.py value|skip train|evaluate key=value …      as attend, with that change

    value   v ← a v + b E[token],  each block with an embedding E of its own; a = b = 1/2 at the start
    skip    x ← a x + b x₀ before each block, with x₀ the embedded tokens; a = 1, b = 0 at the start

Source: modded-nanogpt (Keller Jordan et al. 2024).

Shapes: B batch · L tokens · C width · G heads · D head width
"""

import sys
from typing import Any

import torch
from torch import nn

from core import layers
from core.mixers.softmax import MultiHeadAttention
from domains.text.adapter import Adapter
from experiments.cli import main


def with_values() -> None:
    init, tokens, project = Adapter.__init__, Adapter.tokens, MultiHeadAttention.project

    def init_too(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        mixers = [block.mixer for block in self.transformer.blocks]
        self.values = nn.ModuleList(nn.Embedding(self.vocab_size, m.num_kv_heads * m.head_dim) for m in mixers)
        self.shares = nn.Parameter(torch.full((2 * len(mixers),), 0.5))
        for number, mixer in enumerate(mixers):
            mixer.extra = (self, number)

    def tokens_too(self: Any, batch: Any) -> Any:
        self.numbers = batch["tokens"]  # (B, L)
        return tokens(self, batch)

    def project_too(self: Any, x: Any, rotation: Any = None) -> Any:
        q, k, v = project(self, x, rotation)
        adapter, n = self.extra
        own = adapter.values[n](adapter.numbers).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)  # (B, G, L, D)
        return q, k, adapter.shares[2 * n] * v + adapter.shares[2 * n + 1] * own

    Adapter.__init__, Adapter.tokens, MultiHeadAttention.project = init_too, tokens_too, project_too


def with_skips() -> None:
    init, block = Adapter.__init__, layers.TransformerBlock.forward

    def init_too(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        blocks = self.transformer.blocks
        self.kept, self.first = nn.Parameter(torch.ones(len(blocks))), nn.Parameter(torch.zeros(len(blocks)))
        for number, one in enumerate(blocks):
            one.extra = (self, number)

    def block_too(self: Any, x: Any, **mixing: Any) -> Any:
        adapter, n = self.extra
        adapter.start = x if n == 0 else adapter.start  # (B, L, C)
        return block(self, adapter.kept[n] * x + adapter.first[n] * adapter.start, **mixing)

    Adapter.__init__, layers.TransformerBlock.forward = init_too, block_too


if __name__ == "__main__":
    {"value": with_values, "skip": with_skips}[sys.argv.pop(1)]()
    sys.exit(main())
