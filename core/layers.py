"""The building blocks, from one attention layer to a whole Transformer.

Shapes: B batch · L tokens · M keys seen · C width · A axes of position · H heads
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.bias import Bias, PairBias
from core.cache import Cache, KVCache, LastKeysAndValues, RecurrentState, State, WindowCache
from core.config import Activation, Norm, TransformerConfig
from core.masks import Mask, NoMask
from core.mixers.registry import MIXERS
from core.positions import NoPosition, Position, Positions, span
from core.positions.base import recorded
from core.probe import BlockProbe, Probe


class FeedForward(nn.Module):
    """The feed-forward layer: out(act(up x)), or out(silu(gate x) · up x) with SwiGLU, token by token.

    Source: SwiGLU: Shazeer 2020; ReLU²: So et al. 2021.
    """

    def __init__(self, dim: int, hidden: int, *, activation: Activation = Activation.gelu, linear_bias: bool = True):
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(dim, hidden * (2 if activation is Activation.swiglu else 1), bias=linear_bias)
        self.out = nn.Linear(hidden, dim, bias=linear_bias)

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
    """gain ⊙ x, with a gain that is trained from a small number (Touvron et al. 2021, CaiT)."""

    def __init__(self, dim: int, start: float):
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return x * self.gain


class DropPath(nn.Module):
    """Stochastic depth: drop what a block adds for some samples, and scale it up for the others.

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
        self.mixer: Any = MIXERS[c.mixer](c)
        self.feed_forward = FeedForward(
            c.dim, round(c.dim * c.mlp_ratio), activation=c.activation, linear_bias=c.linear_bias
        )
        self.scale1, self.scale2 = (
            None if c.layer_scale is None else LayerScale(c.dim, c.layer_scale) for _ in range(2)
        )
        self.dropout, self.drop_path = nn.Dropout(c.dropout), DropPath(drop_path)
        if c.zero_init:
            for layer in (self.mixer.out, self.feed_forward.out):
                assert isinstance(layer, nn.Linear)
                nn.init.zeros_(layer.weight)

    def forward(
        self, x: Float[Tensor, "B L C"], *, probe: BlockProbe | None = None, last: int | None = None, **mixing
    ) -> Float[Tensor, "B n C"]:
        """Return the block's output at the last n tokens; at all of them if `last` is None."""
        y = self.mixer(self.norm1(x), probe=probe, last=last, **mixing)
        if last is not None:
            x, y = x[:, -last:], y[:, -last:]  # (B, n, C)
        x = x + self.scaled(y, self.scale1)
        x = x + self.scaled(self.feed_forward(self.norm2(x)), self.scale2)
        return x if probe is None else probe.edit("residual", x)

    def scaled(self, y: Float[Tensor, "B L C"], scale: LayerScale | None) -> Float[Tensor, "B L C"]:
        y = y if scale is None else scale(y)
        return self.drop_path(self.dropout(y)) if self.training else y


class Transformer(nn.Module):
    """The Transformer of all domains: position, blocks, final norm.

    Args:
        config: sizes and choices.
        position: the position encoding.
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
        positions: Positions | None = None,
        mask: Mask = NoMask(),
        bias: Bias | Tensor | None = None,
        cache: Cache | None = None,
        probe: Probe | None = None,
        last: int | None = None,
    ) -> Float[Tensor, "B n C"]:
        """Hidden states of tokens x: in training, prefill, decoding and agents alike.

        Args:
            x: (B, L, C).
            positions: of the tokens, (L, A) or (B, L, A); 0, 1, 2 … after those in the cache if None. A token at -1,
                such as the class token of a ViT, has none.
            mask: which keys each query sees.
            bias: added to the scores, broadcastable to (B, H, L, M).
            cache: what came before; filled with these tokens. It hides the padding of rows that begin later.
            probe: reads and edits activations.
            last: the last block computes the last n tokens alone; all of them if None.
        Returns:
            (B, n, C).
        """
        x, blocks = self.prepare(x, positions=positions, mask=mask, bias=bias, cache=cache, probe=probe)
        for number, (block, inputs) in enumerate(blocks):
            x = block(x, **inputs, last=last if number == len(blocks) - 1 else None)  # (B, L, C), at the end (B, n, C)
        return self.norm(x)

    def prepare(
        self,
        x: Float[Tensor, "B L C"],
        *,
        positions: Positions | None = None,
        mask: Mask = NoMask(),
        bias: Bias | Tensor | None = None,
        cache: Cache | None = None,
        probe: Probe | None = None,
    ) -> tuple[Float[Tensor, "B L C"], list[tuple[TransformerBlock, dict[str, Any]]]]:
        """Tokens as the first block sees them, and each block with its inputs beside them: the start of `forward`.

        A model that does something between the blocks goes through them by itself, and ends with `norm`.
        """
        if positions is None:
            positions = span(0, x.shape[1], x) if cache is None else cache.next_positions(x)
        mask = mask if cache is None else mask & cache.left_padding()
        mask = mask if recorded(x) else mask.remembering()
        key_positions = positions if cache is None else cache.append_positions(positions)
        x = self.embed_norm(self.position.add(x, positions))
        bias = add_biases(self.position.bias(positions, key_positions), bias)
        rotations = self.position.rotations(positions, len(self.blocks))
        caches = [None] * len(self.blocks) if cache is None else cache.blocks
        shared = {"mask": mask, "bias": bias}
        return x, [
            (block, shared | {"rotation": rotations[n], "cache": caches[n], "probe": probe and probe.block(n)})
            for n, block in enumerate(self.stack())
        ]

    def make_cache(self, capacity: int) -> Cache[Any]:
        """An empty cache for at most `capacity` tokens: what the mixer of each block keeps."""
        depth, kept = len(self.blocks), self.stack()[0].mixer.make_cache(capacity)
        match kept:
            case LastKeysAndValues():
                return WindowCache(depth, kept.window)
            case State():
                return RecurrentState(depth)
        return KVCache(depth, capacity)

    def stack(self) -> list[TransformerBlock]:
        """The blocks, as what they are."""
        return list(self.blocks)  # pyright: ignore[reportReturnType]


def add_biases(a: Bias | None, b: Bias | Tensor | None) -> Bias | None:
    b = PairBias(b) if isinstance(b, Tensor) else b
    return b if a is None else a if b is None else a + b


def make_norm(config: TransformerConfig) -> nn.Module:
    if config.norm is Norm.rms:
        return nn.RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=1e-5 if config.norm_eps is None else config.norm_eps, bias=config.linear_bias)


def _check(config: TransformerConfig) -> None:
    if config.depth < 1:
        raise ValueError(f"a Transformer needs depth >= 1, got {config.depth}")
    if config.mlp_ratio * config.dim < 1:
        raise ValueError(f"mlp_ratio {config.mlp_ratio} leaves no hidden feature at width {config.dim}")
    if not (0 <= config.dropout < 1 and 0 <= config.drop_path < 1):
        raise ValueError(f"dropout and drop_path must lie in [0, 1), got {config.dropout} and {config.drop_path}")
