"""The step of a small model on a CPU, in NumPy.

Below some million parameters an operation of torch costs more than its arithmetic. What is read at once stays torch's.

Shapes: B rows · M columns so far · C width · H query heads · G key/value heads · D head width
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from core.config import Activation, Mixer
from core.layers import LayerScale, TransformerBlock
from core.mixers.softmax import MultiHeadAttention
from domains.text.adapter import Adapter
from domains.text.lora import LowRank
from domains.text.memory import NOTHING
from domains.text.reading import Attending, Reader, Recurrent, Word

FEW = 20_000_000  # parameters

Array = np.ndarray
Map = Callable[[Array], Array]


def make_reader(adapter: Adapter, capacity: int) -> Reader:
    """The reader for a model's mixer, size and device, for at most `capacity` columns where it has any."""
    if adapter.config.mixer not in (Mixer.softmax, Mixer.window):
        return Recurrent(adapter)
    few = sum(p.numel() for p in adapter.parameters()) < FEW and not torch.is_autocast_enabled("cpu")
    if few and adapter.config.mixer is Mixer.softmax and adapter.device.type == "cpu":
        return Small(adapter, capacity)
    return Attending(adapter, capacity)


class Small(Attending):
    """Reads by `Attending` what comes at once, and one word a row by itself, into the same cache."""

    def __init__(self, adapter: Adapter, capacity: int):
        super().__init__(adapter, capacity)
        trunk, head = adapter.transformer, adapter.embed if adapter.config.tied else adapter.next
        self.lean = [_Block(block, mixer) for block, mixer in zip(self.blocks, self.mixers, strict=True)]
        self.embed, self.head = _numbers(adapter.embed.weight), np.ascontiguousarray(_numbers(head.weight).T)
        self.embed_norm, self.norm = _norm(trunk.embed_norm), _norm(trunk.norm)
        self.places = _numbers(self.added)  # (M, C)
        self.angles = None if self.turns is None else [_numbers(table).reshape(capacity, 2, -1) for table in self.turns]

    def step(self, rows):
        if len(rows[0]) > 1 or self.columns == 0:
            return super().step(rows)
        new = self.columns = self.columns + 1
        at = new - 1 if self.starts is None else new - 1 - self.starts.numpy()
        angles = None if self.angles is None else [_of_heads(table[at]) for table in self.angles]
        bias = self.visible(1, new)[1]
        added = None if bias is None else bias[:, :, 0].numpy()  # (B|1, H|1, M)
        x = self.embed_norm(self.words([row[0] for row in rows]) + self.places[at])  # (B, C)
        with np.errstate(over="ignore"):  # exp(-x) where x is far below 0: 1 / ∞ is right
            for block, kept in zip(self.lean, self.cache.blocks, strict=True):
                kept.length = new
                x = block(x, angles, kept.keys.numpy()[:, :, :new], kept.values.numpy()[:, :, :new], added)
        scores, cap = self.norm(x) @ self.head, self.adapter.config.softcap
        return torch.from_numpy(scores if cap is None else cap * np.tanh(scores / cap))[:, None]  # (B, 1, V)

    def words(self, row: list[Word]) -> Array:
        """(B, C): a word a row, as a vector."""
        x = self.embed[[token for token, _ in row]]
        if not self.adapter.orders:
            return x
        places = np.array([found for _, found in row]) + np.arange(len(self.adapter.orders)) * (NOTHING + 1)  # (B, O)
        return x + _numbers(self.adapter.recall.weight)[places].sum(1)


class _Block:
    """A TransformerBlock of one word a row."""

    def __init__(self, block: TransformerBlock, mixer: MultiHeadAttention):
        self.H, self.G, self.scale = mixer.heads, mixer.kv_heads, np.float32(mixer.head_dim**-0.5)
        self.norm1, self.norm2 = _norm(block.norm1), _norm(block.norm2)
        self.qk_norm = _norm(*[mixer.q_norm] * self.H, *[mixer.k_norm] * self.G)
        self.qkv, self.up = _linear(mixer.qkv), _linear(block.feed_forward.up)
        self.out, self.down = _linear(mixer.out, block.scale1), _linear(block.feed_forward.out, block.scale2)
        self.activation = ACTIVATIONS[block.feed_forward.activation]

    def __call__(self, x: Array, angles: list[Array] | None, keys: Array, values: Array, added: Array | None) -> Array:
        """Args: x (B, C); keys and values (B, G, M, D), whose last place is for the new word; added (B|1, H|1, M)."""
        B, H, G = len(x), self.H, self.G
        qkv = self.qkv(self.norm1(x)).reshape(B, H + 2 * G, -1)
        qk = self.qk_norm(qkv[:, : H + G])  # (B, H + G, D)
        if angles is not None:
            cos, sin = angles
            halves = qk.reshape(B, H + G, 2, -1)
            qk = (halves * cos + halves[:, :, ::-1] * sin).reshape(B, H + G, -1)
        keys[:, :, -1], values[:, :, -1] = qk[:, H:], qkv[:, H + G :]
        scores = (qk[:, :H] * self.scale).reshape(B, G, H // G, -1) @ keys.swapaxes(-1, -2)  # (B, G, H / G, M)
        if added is not None:
            shape = (len(added), G, H // G, -1) if added.shape[1] == H else (len(added), 1, 1, -1)
            scores = scores + added.reshape(shape)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads = weights @ values / weights.sum(-1, keepdims=True)  # (B, G, H / G, D)
        x = x + self.out(heads.reshape(B, -1))
        return x + self.down(self.activation(self.up(self.norm2(x))))


def _of_heads(table: Array) -> Array:
    """(2, D / 2) for all rows, or (B, 1, 2, D / 2): the same for every head."""
    return table if table.ndim == 2 else table[:, None]


def _numbers(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def _norm(*norms: nn.Module) -> Map:
    """A norm over the last dimension; of several of a kind, each for its place along the dimension before."""
    norm = norms[0]
    if isinstance(norm, nn.Identity):
        return lambda x: x
    assert isinstance(norm, nn.RMSNorm | nn.LayerNorm)
    gain = np.stack([_numbers(weight) for one in norms for weight in [*one.parameters()][:1]])  # (norms, width)
    gain = gain if len(norms) > 1 else gain[0]
    eps = np.float32(torch.finfo(torch.float32).eps if norm.eps is None else norm.eps)
    if isinstance(norm, nn.RMSNorm):
        return lambda x: x / np.sqrt(_mean_square(x) + eps) * gain
    shift = np.float32(0) if norm.bias is None else _numbers(norm.bias)

    def centred(x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt(_mean_square(x) + eps) * gain + shift

    return centred


def _mean_square(x: Array) -> Array:
    return np.einsum("...i,...i", x, x)[..., None] / np.float32(x.shape[-1])


def _linear(layer: nn.Linear, scale: nn.Module | None = None) -> Map:
    """A linear layer, and what scales its output."""
    layer = layer.plain() if isinstance(layer, LowRank) else layer
    weight = np.ascontiguousarray(_numbers(layer.weight).T)  # (in, out)
    bias = None if layer.bias is None else _numbers(layer.bias)
    gain = _numbers(scale.gain) if isinstance(scale, LayerScale) else None

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
    gate, up = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    return gate / (1 + np.exp(-gate)) * up


ACTIVATIONS: dict[Activation, Map] = {
    Activation.gelu: _gelu,
    Activation.gelu_tanh: _gelu_tanh,
    Activation.relu: lambda x: np.maximum(x, 0),
    Activation.relu2: lambda x: np.square(np.maximum(x, 0)),
    Activation.swiglu: _swiglu,
}
