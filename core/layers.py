"""The building blocks, from one attention layer to a whole Transformer.

Shapes: B batch · L tokens · M keys seen · C width · A axes of position · H heads
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.bias import Bias, PairBias
from core.cache import Cache
from core.config import Activation, Mixer, Norm, TransformerConfig
from core.masks import Everything, Mask
from core.mixers.convolution import Convolution
from core.mixers.kinds import DeltaAttention, LinearAttention
from core.mixers.recurrence import Recurrence
from core.mixers.softmax import MultiHeadAttention
from core.positions import NoPosition, Position
from core.probe import Probe

# One bias for all blocks, or a function from (block number, tokens) to the block's own.
BlockBias = Bias | Tensor | Callable[[int, Tensor], Tensor | Bias] | None


class FeedForward(nn.Module):
    """Each token by itself: out(act(up x)), or out(silu(gate x) · up x) with SwiGLU.

    Source: SwiGLU: Shazeer 2020; ReLU²: So et al. 2021.
    """

    def __init__(self, dim: int, hidden: int, *, activation: Activation = Activation.gelu, bias: bool = True):
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(dim, hidden * (2 if activation is Activation.swiglu else 1), bias=bias)
        self.out = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        x = self.up(x)
        match self.activation:
            case Activation.gelu:
                x = F.gelu(x)
            case Activation.gelu_tanh:
                x = F.gelu(x, approximate="tanh")
            case Activation.relu:
                x = F.relu(x)
            case Activation.relu2:
                x = F.relu(x).square()
            case Activation.swiglu:
                gate, x = x.chunk(2, dim=-1)
                x = F.silu(gate) * x
        return self.out(x)


class LayerScale(nn.Module):
    """gain ⊙ x, the gain trained from a small number on (Touvron et al. 2021, CaiT)."""

    def __init__(self, dim: int, start: float):
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return x * self.gain


class DropPath(nn.Module):
    """What a block adds is left out for some samples, by chance, and scaled up for the others.

    Source: stochastic depth, Huang et al. 2016.
    """

    def __init__(self, chance: float):
        super().__init__()
        self.chance = chance

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        if not self.training or not self.chance:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.chance
        return x * kept / (1 - self.chance)


class TransformerBlock(nn.Module):
    """x + mixer(norm x), then x + feed-forward(norm x): the pre-norm block (Xiong et al. 2020)."""

    def __init__(self, config: TransformerConfig, drop_path: float = 0.0):
        super().__init__()
        c = config
        self.norm1, self.norm2 = make_norm(c), make_norm(c)
        self.mixer = make_mixer(c)
        self.feed_forward = FeedForward(c.dim, round(c.dim * c.mlp_ratio), activation=c.activation, bias=c.bias)
        self.scale1, self.scale2 = (
            nn.Identity() if c.layer_scale is None else LayerScale(c.dim, c.layer_scale) for _ in range(2)
        )
        self.dropout, self.drop_path = nn.Dropout(c.dropout), DropPath(drop_path)
        if c.zero_init:
            for layer in (self.mixer.out, self.feed_forward.out):
                assert isinstance(layer, nn.Linear)
                nn.init.zeros_(layer.weight)

    def forward(self, x: Float[Tensor, "B L C"], **mixing) -> Float[Tensor, "B L C"]:
        x = x + self.drop_path(self.dropout(self.scale1(self.mixer(self.norm1(x), **mixing))))
        return x + self.drop_path(self.dropout(self.scale2(self.feed_forward(self.norm2(x)))))


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
        last = max(1, config.depth - 1)
        self.blocks = nn.ModuleList(TransformerBlock(config, config.drop_path * n / last) for n in range(config.depth))
        self.norm = make_norm(config)

    def forward(
        self,
        x: Float[Tensor, "B L C"],
        *,
        mask: Mask = Everything(),
        bias: BlockBias = None,
        at: Int[Tensor, "*batch L A"] | None = None,
        cache: Cache | None = None,
        probe: Probe | None = None,
    ) -> Float[Tensor, "B L C"]:
        """Hidden states of tokens x.

        Args:
            x: (B, L, C).
            mask: who may see whom.
            bias: added to the scores, broadcastable to (B, H, L, M): one for all blocks, or a function of
                (block number, tokens (B, L, C)) that gives each block its own.
            at: where the tokens stand, (L, A) or (B, L, A); 0, 1, 2 … after those in the cache if None. A token at -1,
                such as the class token of a ViT, stands nowhere.
            cache: what came before; filled with these tokens.
            probe: filled with what it asks for, and may edit it.
        Returns:
            (B, L, C).
        """
        if at is None:
            start = 0 if cache is None else cache.length
            at = torch.arange(start, start + x.shape[1], device=x.device)[:, None]  # (L, 1)
        seen = at if cache is None else cache.see(at)  # (M, A) or (B, M, A)
        x = self.embed_norm(self.position.add(x, at))
        rotations, own = self.position.rotations(at, len(self.blocks)), self.position.bias(at, seen)
        for number, block in enumerate(self.blocks):
            if probe is not None:
                probe.block = number
            x = block(
                x,
                mask=mask,
                bias=_sum(own, bias(number, x) if callable(bias) else bias),
                rotation=rotations[number],
                cache=None if cache is None else cache.blocks[number],
                probe=probe,
            )  # (B, L, C)
            if probe is not None:
                x = probe.edit("residual", x)
        return self.norm(x)


def make_mixer(config: TransformerConfig) -> nn.Module:
    """The token mixer that a configuration names."""
    c = config
    attention: dict[str, Any] = {"kv_heads": c.kv_heads, "qk_norm": c.qk_norm, "bias": c.bias}
    match c.mixer:
        case Mixer.softmax:
            return MultiHeadAttention(c.dim, c.heads, **attention)
        case Mixer.window:
            return MultiHeadAttention(c.dim, c.heads, window=c.window, **attention)
        case Mixer.linear:
            return LinearAttention(c.dim, c.heads, **attention)
        case Mixer.performer:
            return LinearAttention(c.dim, c.heads, features=4 * c.dim // c.heads, **attention)
        case Mixer.delta | Mixer.gated_delta:
            return DeltaAttention(c.dim, c.heads, gated=c.mixer is Mixer.gated_delta, **attention)
        case Mixer.convolution:
            return Convolution(c.dim, bias=c.bias)
        case Mixer.recurrence:
            return Recurrence(c.dim, bias=c.bias)


def _sum(a: Bias | None, b: Bias | Tensor | None) -> Bias | None:
    b = PairBias(b) if isinstance(b, Tensor) else b
    return b if a is None else a if b is None else a + b


def make_norm(config: TransformerConfig) -> nn.Module:
    if config.norm is Norm.rms:
        return nn.RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=1e-5 if config.norm_eps is None else config.norm_eps, bias=config.bias)


def _check(config: TransformerConfig) -> None:
    if config.depth < 1:
        raise ValueError(f"a Transformer needs depth >= 1, got {config.depth}")
    if config.mlp_ratio * config.dim < 1:
        raise ValueError(f"mlp_ratio {config.mlp_ratio} leaves no hidden feature at width {config.dim}")
    if not (0 <= config.dropout < 1 and 0 <= config.drop_path < 1):
        raise ValueError(f"dropout and drop_path must lie in [0, 1), got {config.dropout} and {config.drop_path}")
