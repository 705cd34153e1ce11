"""The building blocks, from one attention layer to a whole Transformer.

Shapes: B batch · L tokens · M keys seen · C width · H query heads · G key/value heads · D head width
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.attention import attend, probabilities
from core.cache import BlockCache, KVCache
from core.config import Activation, Norm, TransformerConfig
from core.masks import Everything, Mask
from core.positions import NoPosition, Position, Rotation
from core.probe import Probe

Bias = Tensor | Callable[[int, Tensor], Tensor] | None  # one for all blocks, or from (block number, tokens) to a bias


class MultiHeadAttention(nn.Module):
    """Every token gathers values from the tokens that its mask lets it see.

        out = softmax(q kᵀ / √D + bias) v            per head; heads joined and projected

    Source: Vaswani et al. 2017, eq. 1; grouped key/value heads: Ainslie et al. 2023.
    Normalised queries and keys: Henry et al. 2020.

    Args:
        dim: token width C, a multiple of `heads`.
        heads: query heads H, a multiple of `kv_heads`.
        kv_heads: key/value heads G; H if None.
        qk_norm: RMS-normalise queries and keys over the head width.
        bias: add a trained constant in both projections.
    Raises:
        ValueError: if a width or head count does not divide.
    """

    def __init__(self, dim: int, heads: int, *, kv_heads: int | None = None, qk_norm: bool = False, bias: bool = True):
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"the width {dim} must be a multiple of the {heads} heads")
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"the {heads} query heads must be a multiple of the {kv_heads} key/value heads")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=bias)
        self.q_norm = nn.RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.out = nn.Linear(dim, dim, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        H, G = self.heads, self.kv_heads
        q, k, v = self.qkv(x).unflatten(-1, (H + 2 * G, self.head_dim)).transpose(1, 2).split((H, G, G), dim=1)
        return self.q_norm(q), self.k_norm(k), v

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask = Everything(),
        bias: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: BlockCache | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        q, k, v = self.project(x)  # (B, H, L, D), (B, G, L, D), (B, G, L, D)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, M, D)
        if probe is not None:
            probe.record(probabilities(q, k, mask=mask, bias=bias))
        heads = attend(q, k, v, mask=mask, bias=bias)  # (B, H, L, D)
        return self.out(heads.transpose(1, 2).flatten(2))  # (B, L, C)


class FeedForward(nn.Module):
    """Each token by itself: out(act(up x)), or out(silu(gate x) · up x) with SwiGLU.

    Source: SwiGLU: Shazeer 2020; ReLU²: So et al. 2021.
    """

    def __init__(self, dim: int, hidden: int, *, activation: Activation = Activation.gelu, bias: bool = True):
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(dim, hidden * (2 if activation is Activation.swiglu else 1), bias=bias)
        self.out = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        match self.activation:
            case Activation.gelu:
                x = F.gelu(x)
            case Activation.relu2:
                x = F.relu(x).square()
            case Activation.swiglu:
                gate, x = x.chunk(2, dim=-1)
                x = F.silu(gate) * x
        return self.out(x)


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x): the pre-norm block (Xiong et al. 2020)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        c = config
        self.norm1, self.norm2 = make_norm(c), make_norm(c)
        self.attention = MultiHeadAttention(c.dim, c.heads, kv_heads=c.kv_heads, qk_norm=c.qk_norm, bias=c.bias)
        self.feed_forward = FeedForward(c.dim, int(c.dim * c.mlp_ratio), activation=c.activation, bias=c.bias)
        self.dropout = nn.Dropout(c.dropout)
        if c.zero_init:
            for layer in (self.attention.out, self.feed_forward.out):
                nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, **attention) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), **attention))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Transformer(nn.Module):
    """Tokens in, hidden states out: position, blocks, final norm. The one trunk of all domains.

    Args:
        config: sizes and choices.
        position: how tokens know where they are.
    """

    def __init__(self, config: TransformerConfig, position: Position | None = None):
        super().__init__()
        _check(config)
        self.config = config
        self.position = position or NoPosition()
        self.embed_norm = make_norm(config) if config.embed_norm else nn.Identity()
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.norm = make_norm(config)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask = Everything(),
        bias: Bias = None,
        at: Tensor | None = None,
        cache: KVCache | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """Hidden states of tokens x.

        Args:
            x: (B, L, C).
            mask: who may see whom.
            bias: added to the scores, broadcastable to (B, H, L, M): one for all blocks, or a function of
                (block number, tokens (B, L, C)) that gives each block its own.
            at: where the tokens stand, (L, A) or (B, L, A); 0, 1, 2 … after those in the cache if None.
            cache: what came before; filled with these tokens.
            probe: filled with what each block attends to.
        Returns:
            (B, L, C).
        """
        if at is None:
            start = 0 if cache is None else cache.length
            at = torch.arange(start, start + x.shape[1], device=x.device)[:, None]  # (L, 1)
        x = self.embed_norm(self.position.add(x, at))
        rotation = self.position.rotation(at)
        for number, block in enumerate(self.blocks):
            x = block(
                x,
                mask=mask,
                bias=bias(number, x) if callable(bias) else bias,
                rotation=rotation,
                cache=None if cache is None else cache.blocks[number],
                probe=probe,
            )  # (B, L, C)
        return self.norm(x)


def make_norm(config: TransformerConfig) -> nn.Module:
    return nn.RMSNorm(config.dim) if config.norm is Norm.rms else nn.LayerNorm(config.dim, bias=config.bias)


def _check(config: TransformerConfig) -> None:
    if config.depth < 1:
        raise ValueError(f"a Transformer needs depth >= 1, got {config.depth}")
    if config.mlp_ratio * config.dim < 1:
        raise ValueError(f"mlp_ratio {config.mlp_ratio} leaves no hidden feature at width {config.dim}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {config.dropout}")
