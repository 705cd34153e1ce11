"""Attention without softmax, in time linear in the length.

    out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j)          j over the visible tokens

The sums over j are matrices of fixed size, so they can be carried from token to token instead of kept for all pairs.

Shapes: B batch · H heads · L tokens · F features · D head width · N chunks · c tokens a chunk
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.cache import State
from core.mixers.mask_utils import causal_and_padding
from core.mixers.softmax import MultiHeadAttention

Features = Float[Tensor, "B H L F"]
Values = Float[Tensor, "B H L D"]
TINY = 1e-6  # a token that sees nothing divides 0 by this


class LinearAttention(MultiHeadAttention):
    """softmax(q kᵀ) v replaced by φ(q) (φ(k)ᵀ v): time linear in the length, a state of fixed size.

    φ is elu + 1 (Katharopoulos et al. 2020), or random features that estimate softmax (Choromanski et al. 2020).

    Args:
        features: number of random features; elu + 1 if None. The other arguments are those of MultiHeadAttention.
    """

    def __init__(self, dim: int, num_heads: int, *, features: int | None = None, **attention):
        super().__init__(dim, num_heads, **attention)
        self.name = "linear" if features is None else "performer"
        if features is not None:
            self.directions: Tensor
            self.register_buffer("directions", orthogonal_directions(features, self.head_dim))
        self.random = features is not None

    def features(self, x: Tensor) -> Tensor:
        if not self.random:
            return elu_features(x)
        return performer_features(x * self.head_dim**-0.25, self.directions)

    def make_cache(self, capacity: int) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        return State()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B L C"], *, mask, bias=None, rotation=None, cache: State | None = None, **_
    ) -> Float[Tensor, "B L C"]:
        causal, valid = causal_and_padding(self.name, x, mask, bias, cache)
        q, k, v = self.project(x, rotation)
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1) for t in (k, v))  # (B, H, L, D)
        q, k = self.features(q), self.features(k)  # (B, H, L, F)
        if valid is not None:
            k = k * valid[:, None, :, None]
        if not causal:
            return self.join(full(q, k, v).to(x.dtype))
        before = Sums(cache.tensors[0]) if cache is not None and cache.tensors else None
        heads, sums = chunked(q, k, v, before)
        if cache is not None:
            cache.keep(x.shape[1], sums.kv)
        return self.join(heads.to(x.dtype))


class Sums(NamedTuple):
    """The state of causal linear attention after all tokens so far."""

    kv: Float[Tensor, "B H F E"]  # E = D + 1: Σ φ(k) vᵀ, and Σ φ(k) in the last column


def quadratic(q: Features, k: Features, v: Values, *, causal: bool) -> Values:
    """The definition, over all pairs."""
    weights = q @ k.mT  # (B, H, L, L)
    weights = weights.tril() if causal else weights
    return weights @ v / weights.sum(-1, keepdim=True).clamp(min=TINY)


def recurrent(q: Features, k: Features, v: Values, sums: Sums | None = None) -> tuple[Values, Sums]:
    """The causal form, token by token."""
    v = F.pad(v, (0, 1), value=1.0)  # (B, H, L, D + 1)
    kv = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]) if sums is None else sums.kv
    out = []
    for t in range(q.shape[2]):
        kv = kv + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append((q[:, :, t, None] @ kv)[:, :, 0])
    return _normalised(torch.stack(out, 2)), Sums(kv)


def chunked(q: Features, k: Features, v: Values, sums: Sums | None = None, chunk: int = 128) -> tuple[Values, Sums]:
    """The causal form, a chunk at a time: pairs within a chunk, sums for all that came before it."""
    L = q.shape[2]
    v = F.pad(v, (0, 1), value=1.0)  # (B, H, L, D + 1)
    c = min(chunk, L)
    q, k, v = (F.pad(t, (0, 0, 0, -L % c)).unflatten(2, (-1, c)) for t in (q, k, v))  # (B, H, N, c, ·)
    each = k.mT @ v  # (B, H, N, F, D + 1)
    upto = each.cumsum(2) if sums is None else each.cumsum(2) + sums.kv[:, :, None]
    before = upto - each
    out = q @ before + (q @ k.mT).tril() @ v  # (B, H, N, c, D + 1)
    return _normalised(out.flatten(2, 3)[:, :, :L]), Sums(upto[:, :, -1])


def full(q: Features, k: Features, v: Values) -> Values:
    """The bidirectional form."""
    return _normalised(q @ (k.mT @ F.pad(v, (0, 1), value=1.0)))


def elu_features(x: Values) -> Features:
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, eq. 7)."""
    return F.elu(x) + 1


def performer_features(x: Values, directions: Float[Tensor, "F D"]) -> Features:
    """Positive random features of the softmax kernel: φ(x) = exp(ω·x - |x|² / 2) / √F.

    E[φ(q)·φ(k)] = exp(q·k). Their variance grows with |q|² and |k|²: this is an architecture to train, and no drop-in
    for weights that were trained with softmax. Source: FAVOR+, Choromanski et al. 2020.

    Args:
        x: (B, H, L, D), queries or keys, already multiplied by D^(-1/4).
        directions: ω, (F, D).
    """
    x = x.float()
    power = x @ directions.T - x.square().sum(-1, keepdim=True) / 2
    return power.exp() * directions.shape[0] ** -0.5


def orthogonal_directions(features: int, width: int, seed: int = 0) -> Float[Tensor, "F D"]:
    """Rows orthogonal in groups of D, with the lengths of Gaussian vectors."""
    rng = torch.Generator().manual_seed(seed)
    groups = -(-features // width)
    Q, R = torch.linalg.qr(torch.randn(groups, width, width, generator=rng))
    blocks = Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # without the signs some directions would be likelier
    lengths = torch.randn(groups * width, width, generator=rng).norm(dim=-1, keepdim=True)
    return (blocks.reshape(-1, width) * lengths)[:features]


def _normalised(sums: Tensor) -> Tensor:
    return sums[..., :-1] / sums[..., -1:].clamp(min=TINY)
