"""The pair representation: what is known of every two residues, and the attention bias read off it.

Shapes: B batch · L residues, i, j, k among them · C residue width · P pair width · H heads
"""

import torch
from torch import Tensor, nn

from core.config import Activation
from core.layers import FeedForward


class PairTrack:
    """The pairs of one forward pass, updated by the residues before each block of the Transformer.

    It is what the Transformer takes as `bias`: a function of (block number, residues) that returns that block's bias.

    Args:
        blocks: one update for each block of the Transformer.
        z: (B, L, L, P), the pairs to begin with.
        valid: (B, L), False where a residue is padding.
    Attributes:
        z: the pairs after the updates so far.
    """

    def __init__(self, blocks: nn.ModuleList, z: Tensor, valid: Tensor):
        self.blocks, self.z = blocks, z
        self.both = (valid[:, :, None] & valid[:, None, :])[..., None].to(z.dtype)  # (B, L, L, 1)

    def __call__(self, number: int, x: Tensor) -> Tensor:
        self.z, bias = self.blocks[number](self.z, x, self.both)
        return bias


class PairBlock(nn.Module):
    """z + pairs of residues, + triangles, + transition: the lower half of an Evoformer block.

    Source: Jumper et al. 2021, suppl. algorithm 6, without the alignment and the triangle attention.

    Args:
        dim, pair_dim: widths C and P.
        heads: attention heads H that `bias` serves: softmax(q kᵀ / √D + bias(z)), algorithm 7.
    """

    def __init__(self, dim: int, pair_dim: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.outer = Outer(dim, pair_dim)
        self.triangles = TriangleMultiplication(pair_dim)
        self.transition = nn.Sequential(
            nn.LayerNorm(pair_dim), FeedForward(pair_dim, 2 * pair_dim, activation=Activation.relu2)
        )
        self.bias = nn.Sequential(nn.LayerNorm(pair_dim), nn.Linear(pair_dim, heads, bias=False))

    def forward(self, z: Tensor, x: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, L, L, P), x (B, L, C), `both` (B, L, L, 1): 0 where one is padding -> the new z, a bias (B, H, L, L)"""
        z = z + self.outer(self.norm(x))
        z = z + self.triangles(z, both)
        z = z + self.transition(z)
        return z, self.bias(z).permute(0, 3, 1, 2)


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
        edges = self.project(z) * self.gate(z).sigmoid() * both  # (B, L, L, 2P)
        a, b, c, d = edges.permute(3, 0, 1, 2).chunk(4)  # (P / 2, B, L, L)
        triangles = torch.cat([a @ b.mT, c.mT @ d])  # (P, B, L, L)
        return self.gate_out(z).sigmoid() * self.out(self.norm_out(triangles.permute(1, 2, 3, 0)))
