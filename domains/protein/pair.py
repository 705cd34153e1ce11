"""The pair representation, and the attention bias computed from it.

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
from domains.protein.config import ModelConfig, OuterProductKind

MAX_HEADS = 4  # maximum of triangle attention; the number must divide P
CHUNK = 2**22  # numbers per chunk without gradients: 16 MB in float32


def in_row_chunks(f: Callable[..., Tensor], *pairs: Tensor) -> Tensor:
    """Apply f, which acts on each pair separately, to tensors (B, L, L, *): in chunks of rows without gradients."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return f(*pairs)
    step = max(1, CHUNK // pairs[0][:, :1].numel())
    return torch.cat([f(*rows) for rows in zip(*(t.split(step, dim=1) for t in pairs), strict=True)], dim=1)


class PairBlock(nn.Module):
    """Outer product, triangle updates and transition of the pairs: the lower half of an Evoformer block.

    Source: Jumper et al. 2021, suppl. algorithm 6, without the alignment.

    Args:
        config: widths and choices.
        triangle_attention: with triangle attention around both nodes of a pair.
    """

    def __init__(self, config: ModelConfig, triangle_attention: bool):
        super().__init__()
        C, P = config.dim, config.pair_dim
        self.norm = nn.LayerNorm(C)
        self.outer_product = make_outer_product(config)
        self.triangle_multiplication = TriangleMultiplication(P) if config.triangle_multiplication else None
        self.triangle_attention = nn.ModuleList(
            TriangleAttention(P, ending) for ending in (False, True) if triangle_attention
        )
        self.transition = nn.Sequential(nn.LayerNorm(P), FeedForward(P, 2 * P, activation=Activation.relu2))
        rank = config.bias_rank
        self.bias = ExactBias(P, config.num_heads) if rank is None else RankBias(P, config.num_heads, rank)

    def forward(self, z: Tensor, x: Tensor, pair_mask: Tensor) -> tuple[Tensor, Bias]:
        """Return z (B, L, L, P) updated by x (B, L, C), and the attention bias (B, H, L, L).

        Args:
            pair_mask: (B, L, L, 1), 0 where one of the two residues is padding.
        """
        z = z + self.outer_product(self.norm(x))
        if self.triangle_multiplication is not None:
            z = z + self.triangle_multiplication(z, pair_mask)
        for attention in self.triangle_attention:
            z = z + attention(z, pair_mask)
        z = in_row_chunks(lambda z: z + self.transition(z), z)
        return z, self.bias.make_bias(z, pair_mask)


class ExactBias(nn.Sequential):
    """The bias of softmax(q kᵀ / √D + W LayerNorm(z)): algorithm 7 of Jumper et al. 2021."""

    def __init__(self, pair_dim: int, heads: int):
        super().__init__(nn.LayerNorm(pair_dim), nn.Linear(pair_dim, heads, bias=False))

    def make_bias(self, z: Tensor, pair_mask: Tensor) -> Bias:
        return PairBias(self(z).permute(0, 3, 1, 2))  # (B, H, L, L)


class RankBias(nn.Module):
    """The bias of softmax(q kᵀ / √D + u wᵀ), of rank R in each head, from the mean row and column of the pairs.

        u_i = U mean_j LayerNorm(z_ij),  w_j = W mean_i LayerNorm(z_ij)

    It is less expressive than the exact bias, and no kernel has to read L² numbers (Wu et al. 2025, FlashBias).
    """

    def __init__(self, pair_dim: int, heads: int, rank: int):
        super().__init__()
        if rank < 1:
            raise ValueError(f"model.bias_rank={rank} must be at least 1, or null for the exact bias")
        self.num_heads, self.norm = heads, nn.LayerNorm(pair_dim)
        self.rows, self.columns = (nn.Linear(pair_dim, heads * rank, bias=False) for _ in range(2))

    def make_bias(self, z: Tensor, pair_mask: Tensor) -> Bias:
        z = self.norm(z) * pair_mask
        count = pair_mask.sum(2).clamp(min=1)  # (B, L, 1)
        u, w = self.rows(z.sum(2) / count), self.columns(z.sum(1) / count)  # (B, L, H R)
        return LowRankBias(*(t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (u, w)))


def make_outer_product(config: ModelConfig) -> nn.Module:
    kind = {OuterProductKind.low_rank: LowRankOuterProduct, OuterProductKind.full: FullOuterProduct}[
        config.outer_product
    ]
    return kind(config.dim, config.pair_dim)


class LowRankOuterProduct(nn.Module):
    """Pairs from residues: left(x_i) + right(x_j) + W (u(x_i) ⊙ v(x_j)).

    The products are a low-rank bilinear form for each feature of the pair.

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


class FullOuterProduct(nn.Module):
    """Pairs from residues: W (a(x_i) ⊗ b(x_j)), all products of a few features of each.

    Source: the outer product mean of Jumper et al. 2021, suppl. algorithm 10; here the mean over one sequence.

    Args:
        dim, pair_dim: widths C and P; √P features, rounded up, are taken of each residue.
    """

    def __init__(self, dim: int, pair_dim: int):
        super().__init__()
        num_features = 1 + math.isqrt(pair_dim - 1)
        self.split, self.out = nn.Linear(dim, 2 * num_features), nn.Linear(num_features * num_features, pair_dim)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(x).chunk(2, dim=-1)  # (B, L, few)
        weight = self.out.weight.unflatten(1, (a.shape[-1], -1))  # (P, few, few)
        return torch.einsum("bic,bjd,pcd->bijp", a, b, weight) + self.out.bias  # (B, L, L, P)


class TriangleMultiplication(nn.Module):
    """The triangle multiplicative update: an edge is updated from the two other edges of each triangle.

        a, b = σ(gate z) ⊙ project z;   out = σ(gate' z) ⊙ W LayerNorm(Σ_k a_ik ⊙ b_jk)     z normalized first

    Source: Jumper et al. 2021, suppl. algorithms 11 (outgoing edges, as above) and 12 (incoming: Σ_k a_ki ⊙ b_kj). Here
    half of the features use the outgoing edges and the other half the incoming ones, in one step instead of two.

    Args:
        pair_dim: width P, even.
    """

    def __init__(self, pair_dim: int):
        super().__init__()
        self.norm, self.norm_out = nn.LayerNorm(pair_dim), nn.LayerNorm(pair_dim)
        self.project, self.gate = nn.Linear(pair_dim, 2 * pair_dim), nn.Linear(pair_dim, 2 * pair_dim)
        self.out, self.gate_out = nn.Linear(pair_dim, pair_dim), nn.Linear(pair_dim, pair_dim)

    def forward(self, z: Tensor, pair_mask: Tensor) -> Tensor:
        """Return the update of z (B, L, L, P); `pair_mask` (B, L, L, 1) is 0 where a residue is padding."""
        z = self.norm(z)
        edges = in_row_chunks(
            lambda z, pair_mask: self.project(z) * self.gate(z).sigmoid() * pair_mask, z, pair_mask
        )  # (B, L, L, 2P)
        a, b, c, d = edges.permute(3, 0, 1, 2).chunk(4)  # (P / 2, B, L, L)
        triangles = torch.cat([a @ b.mT, c.mT @ d]).permute(1, 2, 3, 0)  # (B, L, L, P)
        return in_row_chunks(lambda z, t: self.gate_out(z).sigmoid() * self.out(self.norm_out(t)), z, triangles)


class TriangleAttention(nn.Module):
    """Triangle attention: an edge attends to the edges of the same node, with a bias from the third edge.

        out_ij = W (σ(gate z_ij) ⊙ Σ_k softmax_k(q_ij · k_ik / √D + b_jk) v_ik)          z normalized first

    Source: Jumper et al. 2021, suppl. algorithms 13 (starting node, as above) and 14 (ending node: the same of zᵀ).

    Args:
        pair_dim: width P.
        ending: around the ending node, not the starting node.
    """

    def __init__(self, pair_dim: int, ending: bool):
        super().__init__()
        self.ending, self.num_heads = ending, math.gcd(pair_dim, MAX_HEADS)
        self.norm = nn.LayerNorm(pair_dim)
        self.qkv = nn.Linear(pair_dim, 3 * pair_dim, bias=False)
        self.bias = nn.Linear(pair_dim, self.num_heads, bias=False)
        self.gate, self.out = nn.Linear(pair_dim, pair_dim), nn.Linear(pair_dim, pair_dim)

    def forward(self, z: Tensor, pair_mask: Tensor) -> Tensor:
        """Return the update of z (B, L, L, P); `pair_mask` (B, L, L, 1) is 0 where a residue is padding."""
        z = self.norm(z.transpose(1, 2) if self.ending else z)
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)  # (B, L, H, L, D) each
        bias = self.bias(z).permute(0, 3, 1, 2)  # (B, H, L, L)
        real = pair_mask.flatten(2).any(-1)  # (B, L)
        rows = [self.attend(q[n], k[n], v[n], real[n], bias[n : n + 1]) for n in range(len(z))]  # (L, H, L, D) each
        gathered = torch.stack(rows).transpose(2, 3).flatten(3)  # (B, L, L, P)
        out = self.out(self.gate(z).sigmoid() * gathered)
        return out.transpose(1, 2) if self.ending else out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor, bias: Tensor) -> Tensor:
        """Attend within the rows of one chain, q, k, v (L, H, L, D), which share one bias (1, H, L, L).

        Without gradients the rows are processed in chunks, to bound the memory.
        """
        step = len(q) if torch.is_grad_enabled() else max(1, CHUNK // bias.numel())
        parts = [
            attend(*rows, mask=Padding(real.expand(len(rows[0]), -1)), bias=bias)
            for rows in zip(q.split(step), k.split(step), v.split(step), strict=True)
        ]
        return torch.cat(parts)
