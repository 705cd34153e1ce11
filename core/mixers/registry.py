"""The token mixers that a configuration can name.

A mixer is a module of one interface:

    forward(x, *, mask, bias, rotation, cache, probe, last) -> (B, L, C), or (B, n, C) of the last n tokens; what it
                                                               does not use is **_
    make_cache(capacity) -> BlockCache       what it keeps of earlier tokens
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from core.config import Mixer, TransformerConfig
from core.mixers.convolution import Convolution
from core.mixers.delta_attention import DeltaAttention
from core.mixers.linear_attention import LinearAttention
from core.mixers.recurrence import Recurrence
from core.mixers.softmax import MultiHeadAttention


def _attention(c: TransformerConfig) -> dict[str, Any]:
    return {name: getattr(c, name) for name in ("dim", "num_heads", "num_kv_heads", "qk_norm", "linear_bias")}


MIXERS: dict[Mixer, Callable[[TransformerConfig], nn.Module]] = {
    Mixer.softmax: lambda c: MultiHeadAttention(**_attention(c)),
    Mixer.window: lambda c: MultiHeadAttention(**_attention(c), window=c.window),
    Mixer.linear: lambda c: LinearAttention(**_attention(c)),
    Mixer.performer: lambda c: LinearAttention(**_attention(c), features=4 * c.dim // c.num_heads),
    Mixer.delta: lambda c: DeltaAttention(**_attention(c), gated=False),
    Mixer.gated_delta: lambda c: DeltaAttention(**_attention(c), gated=True),
    Mixer.convolution: lambda c: Convolution(c.dim, linear_bias=c.linear_bias),
    Mixer.recurrence: lambda c: Recurrence(c.dim, linear_bias=c.linear_bias),
}
