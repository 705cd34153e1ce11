"""The pair representation: what is known of every two residues, and the attention bias read off it.

Shapes: B batch · L residues, i, j, k among them · C residue width · P pair width · H heads · D head width · R rank
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.attention import attend
from core.bias import Bias, LowRankBias, PairBias
from core.config import Activation
from core.layers import FeedForward
from core.masks import Padding
from domains.protein.config import ModelConfig, Product

HEADS = 4  # of triangle attention, at most: as many as divide P
CHUNK = 2**22  # numbers that are worked on at once where no gradient is wanted: 16 MB in float32


def by_rows(f: Callable[..., Tensor], *pairs: Tensor) -> Tensor:
    """f, which treats each pair by itself, of tensors (B, L, L, *): some rows at a time where no gradient is wanted."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return f(*pairs)
    step = max(1, CHUNK // pairs[0][:, :1].numel())
    return torch.cat([f(*rows) for rows in zip(*(t.split(step, dim=1) for t in pairs), strict=True)], dim=1)


class PairBlock(nn.Module):
    """z + pairs of residues, + triangles, + transition: the lower half of an Evoformer block.

    Source: Jumper et al. 2021, suppl. algorithm 6, without the alignment.

    Args:
        config: widths and choices; its attention heads H are those that `bias` serves.
        attends: with triangle attention, from both ends of a pair.
    """

    def __init__(self, config: ModelConfig, attends: bool):
        super().__init__()
        C, P = config.dim, config.pair_dim
        self.norm = nn.LayerNorm(C)
        self.outer = make_outer(config)
        self.triangles = TriangleMultiplication(P) if config.triangles else None
        self.attention = nn.ModuleList(TriangleAttention(P, ending) for ending in (False, True) if attends)
        self.transition = nn.Sequential(nn.LayerNorm(P), FeedForward(P, 2 * P, activation=Activation.relu2))
        rank = config.bias_rank
        self.bias = ExactBias(P, config.num_heads) if rank is None else RankBias(P, config.num_heads, rank)

    def forward(self, z: Tensor, x: Tensor, both: Tensor) -> tuple[Tensor, Bias]:
        """z (B, L, L, P), x (B, L, C), `both` (B, L, L, 1): 0 where one is padding -> the new z, a bias (B, H, L, L)"""
        z = z + self.outer(self.norm(x))
        if self.triangles is not None:
            z = z + self.triangles(z, both)
        for attention in self.attention:
            z = z + attention(z, both)
        z = by_rows(lambda z: z + self.transition(z), z)
        return z, self.bias.read(z, both)


class ExactBias(nn.Sequential):
    """softmax(q kᵀ / √D + W LayerNorm(z)): algorithm 7 of Jumper et al. 2021."""

    def __init__(self, pair_dim: int, heads: int):
        super().__init__(nn.LayerNorm(pair_dim), nn.Linear(pair_dim, heads, bias=False))

    def read(self, z: Tensor, both: Tensor) -> Bias:
        return PairBias(self(z).permute(0, 3, 1, 2))  # (B, H, L, L)


class RankBias(nn.Module):
    """softmax(q kᵀ / √D + u wᵀ): what a residue's row and column of pairs say on average, R numbers for each head.

        u_i = U mean_j LayerNorm(z_ij),  w_j = W mean_i LayerNorm(z_ij)

    It says less than the exact bias, and no kernel has to read L² numbers (Wu et al. 2025, FlashBias).
    """

    def __init__(self, pair_dim: int, heads: int, rank: int):
        super().__init__()
        if rank < 1:
            raise ValueError(f"model.bias_rank={rank} must be at least 1, or null for the exact bias")
        self.num_heads, self.norm = heads, nn.LayerNorm(pair_dim)
        self.rows, self.columns = (nn.Linear(pair_dim, heads * rank, bias=False) for _ in range(2))

    def read(self, z: Tensor, both: Tensor) -> Bias:
        z = self.norm(z) * both
        count = both.sum(2).clamp(min=1)  # (B, L, 1)
        u, w = self.rows(z.sum(2) / count), self.columns(z.sum(1) / count)  # (B, L, H R)
        return LowRankBias(*(t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (u, w)))


def make_outer(config: ModelConfig) -> nn.Module:
    kind = {Product.rank: Outer, Product.outer: OuterProduct}[config.product]
    return kind(config.dim, config.pair_dim)


class Outer(nn.Module):
    """Every two residues as a pair: left(x_i) + right(x_j) + W (u(x_i) ⊙ v(x_j)).

    The products are a bilinear form of low rank for each feature of the pair: what amino acids like to be neighbours.

    Args:
        dim, pair_dim: widths C and P; P is the rank, too.
    """

    def __init__(self, dim: int, pair_dim: int):
        super().__init__()
        self.split = nn.Linear(dim, 4 * pair_dim)
        self.out = nn.Linear(pair_dim, pair_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        left, right, u, v = self.split(x).chunk(4, dim=-1)  # (B, L, P) each
        products = u[:, :, None] * v[:, None]  # (B, L, L, P)
        return self.out(products) + left[:, :, None] + right[:, None]


class OuterProduct(nn.Module):
    """Every two residues as a pair: W (a(x_i) ⊗ b(x_j)), all products of a few features of either.

    Source: the outer product mean of Jumper et al. 2021, suppl. algorithm 10; of one sequence, the mean is itself.

    Args:
        dim, pair_dim: widths C and P; √P features, rounded up, are taken of each residue.
    """

    def __init__(self, dim: int, pair_dim: int):
        super().__init__()
        few = 1 + math.isqrt(pair_dim - 1)
        self.split, self.out = nn.Linear(dim, 2 * few), nn.Linear(few * few, pair_dim)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(x).chunk(2, dim=-1)  # (B, L, few)
        weight = self.out.weight.unflatten(1, (a.shape[-1], -1))  # (P, few, few)
        return torch.einsum("bic,bjd,pcd->bijp", a, b, weight) + self.out.bias  # (B, L, L, P)


class TriangleMultiplication(nn.Module):
    """An edge learns from the two other edges of each triangle that it belongs to.

        a, b = σ(gate z) ⊙ project z;   out = σ(gate' z) ⊙ W LayerNorm(Σ_k a_ik ⊙ b_jk)     z normalised first

    Source: Jumper et al. 2021, suppl. algorithms 11 (outgoing edges, as above) and 12 (incoming: Σ_k a_ki ⊙ b_kj). Here
    half of the features takes the outgoing edges and the other half the incoming ones, in one step instead of two.

    Args:
        pair_dim: width P, even.
    """

    def __init__(self, pair_dim: int):
        super().__init__()
        self.norm, self.norm_out = nn.LayerNorm(pair_dim), nn.LayerNorm(pair_dim)
        self.project, self.gate = nn.Linear(pair_dim, 2 * pair_dim), nn.Linear(pair_dim, 2 * pair_dim)
        self.out, self.gate_out = nn.Linear(pair_dim, pair_dim), nn.Linear(pair_dim, pair_dim)

    def forward(self, z: Tensor, both: Tensor) -> Tensor:
        """z (B, L, L, P); `both` (B, L, L, 1) is 0 where a residue is padding, which is in no triangle."""
        z = self.norm(z)
        edges = by_rows(lambda z, both: self.project(z) * self.gate(z).sigmoid() * both, z, both)  # (B, L, L, 2P)
        a, b, c, d = edges.permute(3, 0, 1, 2).chunk(4)  # (P / 2, B, L, L)
        triangles = torch.cat([a @ b.mT, c.mT @ d]).permute(1, 2, 3, 0)  # (B, L, L, P)
        return by_rows(lambda z, t: self.gate_out(z).sigmoid() * self.out(self.norm_out(t)), z, triangles)


class TriangleAttention(nn.Module):
    """An edge gathers from the edges that leave the same residue, under a bias from the third side of the triangle.

        out_ij = W (σ(gate z_ij) ⊙ Σ_k softmax_k(q_ij · k_ik / √D + b_jk) v_ik)          z normalised first

    Source: Jumper et al. 2021, suppl. algorithms 13 (starting node, as above) and 14 (ending node: the same of zᵀ).

    Args:
        pair_dim: width P.
        ending: around the ending node.
    """

    def __init__(self, pair_dim: int, ending: bool):
        super().__init__()
        self.ending, self.num_heads = ending, math.gcd(pair_dim, HEADS)
        self.norm = nn.LayerNorm(pair_dim)
        self.qkv = nn.Linear(pair_dim, 3 * pair_dim, bias=False)
        self.bias = nn.Linear(pair_dim, self.num_heads, bias=False)
        self.gate, self.out = nn.Linear(pair_dim, pair_dim), nn.Linear(pair_dim, pair_dim)

    def forward(self, z: Tensor, both: Tensor) -> Tensor:
        """z (B, L, L, P); `both` (B, L, L, 1) is 0 where a residue is padding, which no edge gathers from."""
        z = self.norm(z.transpose(1, 2) if self.ending else z)
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)  # (B, L, H, L, D) each
        bias = self.bias(z).permute(0, 3, 1, 2)  # (B, H, L, L)
        real = both.flatten(2).any(-1)  # (B, L)
        rows = [self.attend(q[n], k[n], v[n], real[n], bias[n : n + 1]) for n in range(len(z))]  # (L, H, L, D) each
        gathered = torch.stack(rows).transpose(2, 3).flatten(3)  # (B, L, L, P)
        out = self.out(self.gate(z).sigmoid() * gathered)
        return out.transpose(1, 2) if self.ending else out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor, bias: Tensor) -> Tensor:
        """The rows of one chain, q, k, v (L, H, L, D), which share one bias (1, H, L, L).

        With gradients the core takes care that the bias is not laid out for each of them; without, some at a time do.
        """
        step = len(q) if torch.is_grad_enabled() else max(1, CHUNK // bias.numel())
        parts = [
            attend(*rows, mask=Padding(real.expand(len(rows[0]), -1)), bias=bias)
            for rows in zip(q.split(step), k.split(step), v.split(step), strict=True)
        ]
        return torch.cat(parts)
