"""The step of a small model on a CPU, in NumPy.

Below some twenty million parameters an operation of torch costs more than its arithmetic: at 0.85 million a step took 1.5
ms of `Attending`, and 0.3 ms here (one thread of a busy machine). What is read at once, embedding and head stay torch's.

Shapes: B rows · M columns so far · C width · H query heads · G key/value heads · D head width
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from core.config import Activation, Mixer
from core.layers import FeedForward, LayerScale, TransformerBlock
from core.mixers.softmax import MultiHeadAttention
from domains.text.adapter import Adapter
from domains.text.lora import LowRank
from domains.text.reading import Attending, Reader, Recurrent

FEW = 20_000_000  # parameters

Array = np.ndarray
Map = Callable[[Array], Array]


def make_reader(adapter: Adapter, capacity: int) -> Reader:
    """The reader for a model's mixer, size and device, for at most `capacity` columns."""
    if adapter.config.mixer not in (Mixer.softmax, Mixer.window):
        return Recurrent(adapter, capacity)
    few = sum(p.numel() for p in adapter.parameters()) < FEW
    if few and adapter.config.mixer is Mixer.softmax and adapter.device.type == "cpu":
        return Small(adapter, capacity)
    return Attending(adapter, capacity)


class Small(Attending):
    """Reads by `Attending` what comes at once, and one word a row by itself, into the same cache."""

    def __init__(self, adapter: Adapter, capacity: int):
        super().__init__(adapter, capacity)
        self.blocks = [_Block(block) for block in adapter.transformer.blocks]
        self.angles = None if self.turns is None else [table.numpy() for table in self.turns]  # (M, D) each

    def step(self, rows):
        if len(rows[0]) > 1:
            return super().step(rows)
        tokens, at, new = self.enter(rows)
        x = tokens.x[:, 0].numpy()  # (B, C)
        angles = None if self.angles is None else [_of_heads(table[at]) for table in self.angles]
        bias = self.visible(1, new)[1]
        added = None if bias is None else bias[:, :, 0].numpy()  # (B|1, H|1, M)
        with np.errstate(over="ignore"):  # exp(-x) where x is far below 0: 1 / ∞ is right
            for block, kept in zip(self.blocks, self.cache.blocks, strict=True):
                kept.length = new
                x = block(x, angles, kept.keys.numpy()[:, :, :new], kept.values.numpy()[:, :, :new], added)
        return self.leave(torch.from_numpy(x)[:, None], tokens)


class _Block:
    """A TransformerBlock of one word a row."""

    def __init__(self, block: TransformerBlock):
        mixer, feed_forward = block.mixer, block.feed_forward
        assert isinstance(mixer, MultiHeadAttention)
        assert isinstance(feed_forward, FeedForward)
        self.heads, self.kv_heads, self.scale = mixer.heads, mixer.kv_heads, np.float32(mixer.head_dim**-0.5)
        self.norm1, self.norm2, self.q_norm, self.k_norm = map(
            _norm, (block.norm1, block.norm2, mixer.q_norm, mixer.k_norm)
        )
        self.qkv, self.up = _linear(mixer.qkv), _linear(feed_forward.up)
        self.out, self.down = _linear(mixer.out, block.scale1), _linear(feed_forward.out, block.scale2)
        self.activation = ACTIVATIONS[feed_forward.activation]

    def __call__(self, x: Array, angles: list[Array] | None, keys: Array, values: Array, added: Array | None) -> Array:
        """Args: x (B, C); keys and values (B, G, M, D), whose last place is for the new word; added (B|1, H|1, M)."""
        H, G = self.heads, self.kv_heads
        q, k, v = np.split(self.qkv(self.norm1(x)).reshape(len(x), H + 2 * G, -1), (H, H + G), axis=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = _turned(q, *angles), _turned(k, *angles)
        keys[:, :, -1], values[:, :, -1] = k, v
        scores = (q * self.scale).reshape(len(x), G, H // G, -1) @ keys.swapaxes(-1, -2)  # (B, G, H / G, M)
        if added is not None:
            shape = (len(added), G, H // G, -1) if added.shape[1] == H else (len(added), 1, 1, -1)
            scores = scores + added.reshape(shape)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads = weights @ values / weights.sum(-1, keepdims=True)  # (B, G, H / G, D)
        x = x + self.out(heads.reshape(x.shape))
        return x + self.down(self.activation(self.up(self.norm2(x))))


def _turned(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([x[..., half:], x[..., :half]], -1) * sin


def _of_heads(table: Array) -> Array:
    """(1, D) for all rows, or (B, 1, D): the same for every head."""
    return table if table.ndim == 2 else table[:, :1]


def _norm(norm: nn.Module) -> Map:
    match norm:
        case nn.Identity():
            return lambda x: x
        case nn.RMSNorm():
            gain = norm.weight.detach().numpy()
            eps = np.float32(torch.finfo(torch.float32).eps if norm.eps is None else norm.eps)
            return lambda x: x / np.sqrt(_mean_square(x) + eps) * gain
        case nn.LayerNorm():
            gain, shift = norm.weight.detach().numpy(), 0.0 if norm.bias is None else norm.bias.detach().numpy()
            eps = np.float32(norm.eps)

            def centred(x: Array) -> Array:
                x = x - x.mean(-1, keepdims=True)
                return x / np.sqrt(_mean_square(x) + eps) * gain + shift

            return centred
    raise AssertionError(norm)


def _mean_square(x: Array) -> Array:
    return np.einsum("...i,...i", x, x)[..., None] / np.float32(x.shape[-1])


def _linear(layer: nn.Linear, scale: nn.Module | None = None) -> Map:
    """A linear layer, and what scales its output."""
    layer = layer.plain() if isinstance(layer, LowRank) else layer
    weight = np.ascontiguousarray(layer.weight.detach().numpy().T)  # (in, out)
    bias = None if layer.bias is None else layer.bias.detach().numpy()
    gain = scale.gain.detach().numpy() if isinstance(scale, LayerScale) else None

    def apply(x: Array) -> Array:
        x = x @ weight
        x = x if bias is None else x + bias
        return x if gain is None else x * gain

    return apply


def _gelu(x: Array) -> Array:
    return nn.functional.gelu(torch.from_numpy(x)).numpy()  # NumPy has no error function


def _gelu_tanh(x: Array) -> Array:
    return nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()


def _swiglu(x: Array) -> Array:
    gate, up = np.split(x, 2, axis=-1)
    return gate / (1 + np.exp(-gate)) * up


ACTIVATIONS: dict[Activation, Map] = {
    Activation.gelu: _gelu,
    Activation.gelu_tanh: _gelu_tanh,
    Activation.relu: lambda x: np.maximum(x, 0),
    Activation.relu2: lambda x: np.square(np.maximum(x, 0)),
    Activation.swiglu: _swiglu,
}
