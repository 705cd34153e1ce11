"""Multi-head softmax attention.

Shapes: B batch · L tokens · M keys seen · C width · H query heads · G key/value heads · D head width
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.attention import attend
from core.bias import Bias
from core.cache import KeysAndValues, LastKeysAndValues
from core.masks import Mask, NoMask, Window
from core.positions import Rotation
from core.probe import BlockProbe


class MultiHeadAttention(nn.Module):
    """Multi-head softmax attention under a mask.

        out = softmax(q kᵀ / √D + bias) v            per head; heads joined and projected

    Source: Vaswani et al. 2017, eq. 1; grouped key/value heads: Ainslie et al. 2023.
    Normalised queries and keys: Henry et al. 2020.

    Args:
        dim: token width C, a multiple of `num_heads`.
        num_heads: query heads H, a multiple of `num_kv_heads`.
        num_kv_heads: key/value heads G; H if None.
        qk_norm: RMS-normalise queries and keys over the head width.
        linear_bias: add a trained constant in both projections.
        window: the most tokens to either side that a token sees (Beltagy et al. 2020); all if None.
    Raises:
        ValueError: if a width or head count does not divide.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
        linear_bias: bool = True,
        window: int | None = None,
    ):
        super().__init__()
        self.window_mask = NoMask() if window is None else Window(window, window)
        H, G = num_heads, num_heads if num_kv_heads is None else num_kv_heads
        if dim < 1 or H < 1 or dim % H:
            raise ValueError(f"the width {dim} must be a multiple of the {H} heads")
        if G < 1 or H % G:
            raise ValueError(f"the {H} query heads must be a multiple of the {G} key/value heads")
        self.num_heads, self.num_kv_heads, self.head_dim = H, G, dim // H
        self.qkv = nn.Linear(dim, (H + 2 * G) * self.head_dim, bias=linear_bias)
        self.qk_norm = qk_norm
        self.q_norm = nn.RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.out = nn.Linear(dim, dim, bias=linear_bias)
        self.attend: Callable[..., Tensor] | None = None  # core.parallel.Ulysses here spreads the sequence over devices

    def project(
        self, x: Float[Tensor, "B L C"], rotation: Rotation | None = None
    ) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B G L D"], Float[Tensor, "B G L D"]]:
        """Return queries, keys and values of the tokens, normalised and rotated."""
        H, G = self.num_heads, self.num_kv_heads
        heads = self.qkv(x).view(*x.shape[:2], H + 2 * G, self.head_dim).transpose(1, 2)  # (B, H + 2 G, L, D)
        q, k, v = heads.split_with_sizes((H, G, G), dim=1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is None:
            return q, k, v
        if rotation.per_head:
            return rotation.rotate(q), rotation.rotate(k), v
        qk = torch.cat([q, k], dim=1) if self.qk_norm else heads[:, : H + G]
        q, k = rotation.rotate(qk).split_with_sizes((H, G), dim=1)  # both at once: half the operations
        return q, k, v

    def join(self, heads: Float[Tensor, "B H L D"]) -> Float[Tensor, "B L C"]:
        """Concatenate the outputs of the heads, and project them."""
        return self.out(heads.transpose(1, 2).flatten(2))

    def make_cache(self, capacity: int) -> KeysAndValues | LastKeysAndValues:
        """Return an empty cache of the keys and values of this layer, for at most `capacity` tokens."""
        return (
            LastKeysAndValues(self.window_mask.left)
            if isinstance(self.window_mask, Window)
            else KeysAndValues(capacity)
        )

    def forward(
        self,
        x: Float[Tensor, "B L C"],
        *,
        mask: Mask = NoMask(),
        bias: Bias | None = None,
        rotation: Rotation | None = None,
        cache: KeysAndValues | LastKeysAndValues | None = None,
        probe: BlockProbe | None = None,
        last: int | None = None,
    ) -> Float[Tensor, "B n C"]:
        """Args: last: compute the last n tokens alone; the others are keys and values."""
        mask = mask & self.window_mask
        q, k, v = self.project(x, rotation)  # (B, H, L, D), (B, G, L, D), (B, G, L, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, M, D)
        if probe is not None:
            q, k, v = probe.record_qkv(q=q, k=k, v=v, mask=mask, bias=bias)
        if last is not None:
            q, bias = q[:, :, -last:], None if bias is None else bias.last(last)
        heads = (self.attend or attend)(q, k, v, mask=mask, bias=bias)  # (B, H, L, D)
        if probe is not None:
            heads = probe.edit("heads", heads)
        return self.join(heads)  # (B, L, C)
