"""Features of a multiple sequence alignment: residue frequencies, and the coupling of residues.

Shapes: D sequences of an alignment · N residues of its query · F = 20 amino acids · A = 21, the gap among them
"""

from functools import cache, lru_cache

import numpy as np
import torch
from Bio.Align import substitution_matrices
from torch import Tensor

from domains.protein.alignment import Alignment
from domains.protein.alphabet import AMINO_ACIDS, GAP, UNKNOWN

IDENTITY_THRESHOLD = 0.62  # identity over all columns, gaps included, above which sequences count as one
SHALLOW = 30  # effective sequences; below, couplings are unreliable
PSEUDOCOUNT = 10.0  # weight of BLOSUM62 in sequences (PSI-BLAST's β)
RIDGE = 4.5  # λ = RIDGE / √Meff on the diagonal of a covariance (trRosetta)
CACHE_SIZE = 4096  # alignments whose weights are cached
CHUNK = 2**25  # temporary numbers in memory at once


@lru_cache(CACHE_SIZE)
def sequence_weights(alignment: Alignment) -> np.ndarray:
    """Return the weight of each sequence, (D,): 1 / the number of similar sequences, itself included. Their sum is
    Meff.

    Sequences are similar if at least 62 % of all columns are equal, gaps included.

    Source: Weigt et al. 2009; the counting of gaps: trRosetta (Yang et al. 2020).
    """
    rows = torch.from_numpy(alignment.rows).long()  # (D, N)
    letters = torch.nn.functional.one_hot(rows, GAP + 1).flatten(1).float()  # (D, 22 N)
    step = max(1, CHUNK // len(rows))
    alike = [((part @ letters.T) >= IDENTITY_THRESHOLD * rows.shape[1] - 1e-3).sum(1) for part in letters.split(step)]
    return 1 / torch.cat(alike).numpy()


def effective_depth(alignment: Alignment) -> float:
    """Return Meff at 62 %: the effective number of sequences."""
    return float(sequence_weights(alignment).sum())


def profile(alignment: Alignment) -> np.ndarray:
    """Return the frequency of each amino acid at each residue, (N, F), with BLOSUM62 pseudocounts.

        p = (n · counts + β · expected) / (n + β);  expected_a = Σ_b counts_b · q_ab / p_b

    with n the effective number of sequences that have a residue there, less one, and β = 10. A single
    sequence gets BLOSUM62's frequencies.

    Source: PSI-BLAST (Altschul et al. 1997, eq. 3 to 5).
    """
    each = sequence_weights(alignment)
    letters = np.eye(GAP + 1, len(AMINO_ACIDS), dtype=np.float32)[alignment.rows]  # (D, N, F); zeros for X and gaps
    counts = np.einsum("d,dnf->nf", each, letters)
    depth = counts.sum(1, keepdims=True)  # (N, 1)
    background, conditional = blosum()
    counts = np.where(depth > 0, counts / np.maximum(depth, 1e-9), background)
    known = np.maximum(depth - 1, 0)
    return ((known * counts + PSEUDOCOUNT * counts @ conditional) / (known + PSEUDOCOUNT)).astype(np.float32)


@cache
def blosum() -> tuple[np.ndarray, np.ndarray]:
    """Return BLOSUM62's background frequencies, (F,), and conditional ones p(b | a), (F, F).

    Scores are 2 log2 (q_ab / p_a p_b) (Henikoff & Henikoff 1992); p is what makes their rows sum to 1.
    """
    scores = substitution_matrices.load("BLOSUM62")
    order = [str(scores.alphabet).index(letter) for letter in AMINO_ACIDS]  # pyright: ignore[reportAttributeAccessIssue]
    ratio = 2 ** (np.asarray(scores)[np.ix_(order, order)] / 2)  # q_ab / p_a p_b
    background = np.linalg.solve(ratio, np.ones(len(AMINO_ACIDS)))
    background /= background.sum()
    conditional = ratio * background
    return background, conditional / conditional.sum(1, keepdims=True)


def site_features(alignment: Alignment) -> np.ndarray:
    """Return per residue, (N, 3): the share of gaps, the mean of insertions before it, and the depth of the alignment.

    Insertions n count as 2/π · arctan(n / 3) (Jumper et al. 2021), depth as log Meff / 8, so that all are near 0 to 1.
    """
    each = sequence_weights(alignment)
    gaps, inserted = alignment.rows == GAP, 2 / np.pi * np.arctan(alignment.insertions / 3)
    mean = np.einsum("d,dnk->nk", each / each.sum(), np.stack([gaps, inserted], -1))
    return np.column_stack([mean, np.full(len(mean), np.log(each.sum()) / 8)]).astype(np.float32)


def covariance(alignment: Alignment) -> np.ndarray:
    """Return the norm of the covariance of each pair of residues, (N, N), after APC.

        C_ij = Σ_d w_d (x_di - x̄_i)(x_dj - x̄_j)ᵀ / Meff          x one-hot, (A,) for each residue
        S_ij = |C_ij| over the amino acids;  S_ij - S_i· S_·j / S_··

    Source: average product correction: Dunn et al. 2008.
    """
    return average_product_correction(block_norms(centered_one_hot(alignment))).numpy()


def inverse_covariance(alignment: Alignment) -> np.ndarray:
    """Return `covariance` of the inverse of C + λ, (N, N): the direct coupling, given all other residues.

    With λ = 4.5 / √Meff. With fewer sequences than columns, a matrix (D, D) is inverted instead:

        (AᵀA + λ)⁻¹ = (1 - Aᵀ (A Aᵀ + λ)⁻¹ A) / λ = (1 - BᵀB) / λ,   A Aᵀ + λ = R Rᵀ,  B = R⁻¹ A

    Source: Jones et al. 2012 (PSICOV) for the idea, Yang et al. 2020 (trRosetta) for the ridge; Woodbury's identity.
    """
    x = centered_one_hot(alignment)  # (D, N, A)
    ridge = RIDGE / effective_depth(alignment) ** 0.5
    a = x.flatten(1)
    if len(a) > a.shape[1]:
        a = torch.linalg.qr(a, mode="r").R  # has the same AᵀA
    root = torch.linalg.cholesky(a @ a.T + ridge * torch.eye(len(a)))
    b = torch.linalg.solve_triangular(root, a, upper=False)
    return average_product_correction(block_norms(b.unflatten(1, x.shape[1:])) / ridge).numpy()


def centered_one_hot(alignment: Alignment) -> Tensor:
    """Return weighted one-hot sequences (D, N, A) minus their mean: AᵀA is the covariance; unknown ones are gaps."""
    each = torch.from_numpy(sequence_weights(alignment)).float()
    rows = torch.from_numpy(alignment.rows).long().clamp(max=UNKNOWN)
    x = torch.nn.functional.one_hot(rows, UNKNOWN + 1).float()  # (D, N, A)
    share = each / each.sum()
    return (x - torch.einsum("d,dna->na", share, x)) * share.sqrt()[:, None, None]


def block_norms(a: Tensor) -> Tensor:
    """Return the norms |a_iᵀ a_j| over the amino acids, (D, N, A) -> (N, N), in chunks of rows."""
    a = a[..., : len(AMINO_ACIDS)]
    columns = a.flatten(1)  # (D, N F)
    step = max(1, CHUNK // (a.shape[2] * columns.shape[1]))
    rows = [
        (part.flatten(1).T @ columns).view(part.shape[1], a.shape[2], *a.shape[1:]).square().sum((1, 3)).sqrt()
        for part in a.split(step, dim=1)
    ]
    return torch.cat(rows)


def average_product_correction(scores: Tensor) -> Tensor:
    """Return the average product correction (N, N) of scores: S_ij - S_i· S_·j / S_··, the diagonal left out and 0."""
    scores = scores.clone().fill_diagonal_(0)
    one = scores.sum(1)
    whole = one.sum().clamp(min=torch.finfo(scores.dtype).tiny)
    return (scores - one[:, None] * one / whole).fill_diagonal_(0)


def covariance_blocks(alignment: Alignment, places: np.ndarray) -> np.ndarray:
    """Return the covariances between the residues `places`, (L, L, A A): DeepCov's input.

    Source: Jones & Kandathil 2018.
    """
    a = centered_one_hot(alignment)[:, torch.from_numpy(places)]  # (D, L, A)
    return torch.einsum("dia,djb->ijab", a, a).flatten(2).numpy()
