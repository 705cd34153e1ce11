"""The mixers that have queries, keys and values but no softmax.

Shapes: B batch · L tokens · C width · H heads · D head width
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.cache import State
from core.mixers import delta, linear
from core.mixers.softmax import MultiHeadAttention
from core.mixers.visible import visible


class LinearAttention(MultiHeadAttention):
    """softmax(q kᵀ) v replaced by φ(q) (φ(k)ᵀ v): time linear in the length, a state of fixed size.

    φ is elu + 1 (Katharopoulos et al. 2020), or random features that estimate softmax (Choromanski et al. 2020).

    Args:
        features: number of random features; elu + 1 if None. The other arguments are those of MultiHeadAttention.
    """

    def __init__(self, dim: int, heads: int, *, features: int | None = None, **attention):
        super().__init__(dim, heads, **attention)
        self.name = "linear" if features is None else "performer"
        if features is not None:
            self.directions: Tensor
            self.register_buffer("directions", linear.orthogonal_directions(features, self.head_dim))
        self.random = features is not None

    def features(self, x: Tensor) -> Tensor:
        if not self.random:
            return linear.elu_features(x)
        return linear.performer_features(x * self.head_dim**-0.25, self.directions)

    def make_cache(self, capacity: int) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        return State()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B L C"],
        *,
        mask,
        bias=None,
        rotation=None,
        cache: State | None = None,
        probe=None,
        last=None,
    ) -> Float[Tensor, "B L C"]:
        causal, valid = visible(self.name, mask, x.shape[0], x.shape[1] + (cache.length if cache else 0), bias)
        q, k, v = self.project(x, rotation)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))  # (B, H, L, D)
        q, k = self.features(q), self.features(k)  # (B, H, L, F)
        if valid is not None:
            k = k * valid[:, None, -x.shape[1] :, None]
        if not causal:
            return self.join(linear.full(q, k, v).to(x.dtype))
        before = linear.Sums(cache.tensors[0]) if cache is not None and cache.tensors else None
        heads, sums = linear.chunked(q, k, v, before)
        if cache is not None:
            cache.keep(x.shape[1], sums.kv)
        return self.join(heads.to(x.dtype))


class DeltaAttention(MultiHeadAttention):
    """A matrix memory under the delta rule (Schlag et al. 2021), gated or not (Yang et al. 2024); causal only.

    How much is written (β) and, with gates, how much is kept (α) is read off each token.

    Args:
        gated: let the memory fade; α = 1 if not. The other arguments are those of MultiHeadAttention.
    """

    def __init__(self, dim: int, heads: int, *, gated: bool = True, **attention):
        super().__init__(dim, heads, **attention)
        self.name = "gated_delta" if gated else "delta"
        self.write = nn.Linear(dim, heads)
        self.keep = nn.Linear(dim, heads) if gated else None
        if self.keep is not None:
            nn.init.constant_(self.keep.bias, 4.0)  # α = 0.98 at first: a memory of some fifty tokens

    def make_cache(self, capacity: int) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        return State()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "B L C"],
        *,
        mask,
        bias=None,
        rotation=None,
        cache: State | None = None,
        probe=None,
        last=None,
    ) -> Float[Tensor, "B L C"]:
        causal, valid = visible(self.name, mask, x.shape[0], x.shape[1] + (cache.length if cache else 0), bias)
        if not causal:
            raise ValueError(f"mixer={self.name} is causal only; this domain lets tokens see what follows them")
        q, k, v = self.project(x, rotation)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))  # (B, H, L, D)
        beta = self.write(x).sigmoid().mT  # (B, H, L)
        log_alpha = torch.zeros_like(beta) if self.keep is None else F.logsigmoid(self.keep(x)).mT
        if valid is not None:
            beta = beta * valid[:, None, -x.shape[1] :]
        before = cache.tensors[0] if cache is not None and cache.tensors else None
        heads, memory = delta.chunked(delta.unit(q), delta.unit(k), v, beta, log_alpha, before)
        if cache is not None:
            cache.keep(x.shape[1], memory)
        return self.join(heads)
