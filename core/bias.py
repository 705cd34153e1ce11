"""Biases on the attention scores.

    PairBias(t)          the numbers themselves, from a pair representation or a table
    LowRankBias(u, w)    u wᵀ: becomes extra features of queries and keys, so every kernel takes it
    a + b                both

Shapes: B batch · H heads · L queries · M keys · R rank · D head width
"""

from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Bias:
    """The base of all biases."""

    def __add__(self, other: "Bias") -> "Bias":
        return SumBias((*self.parts, *other.parts))

    @property
    def parts(self) -> "tuple[PairBias | LowRankBias, ...]":
        raise NotImplementedError

    def dense(self) -> Tensor:
        """(B|1, H|1, L|1, M|1)"""
        raise NotImplementedError

    def last(self, queries: int) -> "Bias":
        """Return the bias of the last so many queries."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class PairBias(Bias):
    """A number for each query and key; sizes of 1 broadcast."""

    values: Float[Tensor, "B H L M"]

    def __post_init__(self):
        if self.values.dim() != 4:
            raise ValueError(f"PairBias needs (B|1, H|1, L|1, M|1), got {tuple(self.values.shape)}")
        if self.values.dtype == torch.bool:
            raise ValueError("a bias is added to the scores, and bool hides: give mask=Dense(…)")

    @property
    def parts(self):
        return (self,)

    def dense(self):
        return self.values

    def last(self, queries):
        return self if self.values.shape[-2] == 1 else PairBias(self.values[..., -queries:, :])


@dataclass(frozen=True, eq=False)
class LowRankBias(Bias):
    """The product u wᵀ; batch and heads of size 1 broadcast.

    It costs R more features of queries and keys instead of L × M numbers: every kernel takes it, flash too, and u and w
    get their gradients. Source: FlashBias (Wu et al. 2025).
    """

    u: Float[Tensor, "#B #H L R"]
    w: Float[Tensor, "#B #H M R"]

    def __post_init__(self):
        if self.u.dim() != 4 or self.w.dim() != 4 or self.u.shape[-1] != self.w.shape[-1]:
            shapes = f"{tuple(self.u.shape)} and {tuple(self.w.shape)}"
            raise ValueError(f"LowRankBias needs u (B|1, H|1, L, R) and w (B|1, H|1, M, R), got {shapes}")

    @property
    def parts(self):
        return (self,)

    def dense(self):
        return self.u @ self.w.mT

    def last(self, queries):
        return LowRankBias(self.u[..., -queries:, :], self.w)


@dataclass(frozen=True, eq=False)
class SumBias(Bias):
    """Several biases at once."""

    terms: tuple[PairBias | LowRankBias, ...]

    @property
    def parts(self):
        return self.terms

    def dense(self):
        return reduce(torch.add, (term.dense() for term in self.terms))

    def last(self, queries):
        return SumBias(tuple(term.last(queries) for term in self.terms))


def absorb_low_rank_bias(
    q: Tensor, k: Tensor, v: Tensor, bias: Bias | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float]:
    """Take the low-rank parts of a bias into queries and keys.

        scale · q kᵀ + u wᵀ = [scale · q, u] [k, w]ᵀ

    Args:
        q: (B, H, L, D).
        k, v: (B, G, M, D).
    Returns:
        q, k and v, all widened by zeros to one multiple of 8, as the kernels want it; the rest of the bias; the scale.
    """
    if bias is None:
        return q, k, v, None, scale
    low = [part for part in bias.parts if isinstance(part, LowRankBias)]
    rest = [part.values for part in bias.parts if isinstance(part, PairBias)]
    dense = reduce(torch.add, rest) if rest else None
    if not low:
        return q, k, v, dense, scale
    (B, H, L, _), (_, G, M, _) = q.shape, k.shape
    if G != H and any(part.w.shape[1] != 1 for part in low):  # each query head brings keys of its own
        k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))
    G = k.shape[1]
    us = [part.u.to(q.dtype).expand(B, H, L, -1) for part in low]
    ws = [part.w.to(k.dtype).expand(B, G, M, -1) for part in low]
    q, k = torch.cat([q * scale, *us], -1), torch.cat([k, *ws], -1)  # (B, H, L, D + R), (B, G, M, D + R)
    width = -(-q.shape[-1] // 8) * 8
    q, k, v = (F.pad(t, (0, width - t.shape[-1])) for t in (q, k, v))
    return q, k, v, dense, 1.0
