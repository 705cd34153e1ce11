"""Metrics of contact prediction, and simple baselines.

A contact is a pair of residues whose Cβ are less than 8 Å apart (Cα for glycine); it is long-range where they are at
least 24 apart in sequence. Precision at L/k is the share of contacts among the L/k pairs i < j with the highest score,
for a chain of L residues; the mean over chains is reported. These are the conventions of CASP.

Shapes: L residues · F amino acids
"""

from collections.abc import Sequence

import numpy as np

from domains.calibration import Reliability, reliability
from domains.protein.chain import Chain, one_hot

CONTACT = 8.0  # Å
LONG_RANGE = 24  # residues
RANGES = {"short": (6, 11), "medium": (12, 23), "long": (LONG_RANGE, None)}  # separations, both ends included
RADIUS, THRESHOLDS = 15.0, (0.5, 1.0, 2.0, 4.0)  # Å, of lDDT
NEAR = 6  # pairs closer than this in sequence are no contacts by any convention
BINS = 10  # of probability
ENOUGH = 300  # chains that a single number is fitted to
STEPS = 8  # of Newton's method


def distances(chain: Chain) -> np.ndarray:
    """Return the distances between the Cβ of a chain, (L, L) in Å; NaN for unresolved residues."""
    assert chain.cb is not None, "a chain without a structure has no distances"
    return np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)


def ranked(score: np.ndarray, nearest: int = LONG_RANGE, farthest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs i, j in a range of separations, sorted by descending score (L, L)."""
    i, j = np.triu_indices(len(score), nearest)
    if farthest is not None:
        i, j = i[j - i <= farthest], j[j - i <= farthest]
    order = np.argsort(-score[i, j], kind="stable")
    return i[order], j[order]


def best(score: np.ndarray, distance: np.ndarray, share: int, span: str = "long") -> tuple[np.ndarray, np.ndarray]:
    """Return the L / `share` pairs i, j of highest score (L, L), in one of RANGES and with known distance (L, L).

    Unresolved residues (NaN) count neither in L nor as candidates, but in separations.
    """
    seen = np.isfinite(np.diag(distance))
    i, j = ranked(score, *RANGES[span])
    known = seen[i] & seen[j]
    top = slice(max(1, int(seen.sum()) // share))
    return i[known][top], j[known][top]


def precision(score: np.ndarray, distance: np.ndarray, share: int, span: str = "long") -> float:
    """Return the precision at L / `share` in one of RANGES, of scores (L, L) and distances (L, L) in Å.

    It is 0 if no pair in that range is known, as in a short chain.
    """
    i, j = best(score, distance, share, span)
    return float((distance[i, j] < CONTACT).mean()) if len(i) else 0.0


def lddt(predicted: np.ndarray, distance: np.ndarray) -> float:
    """Return lDDT: the share of distances below 15 Å predicted within 0.5, 1, 2 and 4 Å, averaged; both (L, L) in Å.

    Source: Mariani et al. 2013, of Cβ instead of all atoms.
    """
    i, j = np.triu_indices(len(distance), 1)
    true = distance[i, j]
    near = true < RADIUS  # NaN is not
    error = np.abs(predicted[i, j] - true)[near]
    return float(np.mean([(error < threshold).mean() for threshold in THRESHOLDS])) if near.any() else 0.0


def median_distance(probability: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the median distance of bin probabilities (*, K), in Å, with uniform density in each bin.

    The first bin is as wide as the second; the median of a distribution whose median is in the last is its edge.
    """
    low, high = np.r_[2 * edges[0] - edges[1], edges], np.r_[edges, edges[-1]]
    below = probability.cumsum(-1)
    k = np.minimum((below < 0.5).sum(-1), len(edges))
    inside = np.take_along_axis(probability, k[..., None], -1)[..., 0]
    before = np.take_along_axis(below, k[..., None], -1)[..., 0] - inside
    return low[k] + (high - low)[k] * np.clip((0.5 - before) / np.maximum(inside, 1e-9), 0, 1)


def calibration(probabilities: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> tuple[float, Reliability]:
    """Return the Brier score (1950) and the reliability of P(contact), for lists of (L, L).

    Over all pairs of all chains, at least 6 apart in sequence, whose distance is known.
    """
    p, y = [], []
    for probability, distance in zip(probabilities, true, strict=True):
        i, j = np.triu_indices(len(distance), NEAR)
        known = np.isfinite(distance[i, j])
        p.append(probability[i, j][known])
        y.append(distance[i, j][known] < CONTACT)
    p, y = np.concatenate(p).astype(float), np.concatenate(y)
    return float(((p - y) ** 2).mean()) if len(p) else 0.0, reliability(p, y, BINS)


class SeparationPrior:
    """The contact rate in the training chains by separation in sequence alone."""

    def __init__(self, chains: Sequence[Chain], smooth: int = 5):
        max_length = max(map(len, chains))
        pairs, contacts = np.zeros(max_length), np.zeros(max_length)
        for chain in chains:
            i, j = np.triu_indices(len(chain))
            distance = distances(chain)[i, j]
            pairs += np.bincount(j - i, np.isfinite(distance), minlength=max_length)
            contacts += np.bincount(j - i, distance < CONTACT, minlength=max_length)
        window = np.ones(2 * smooth + 1)  # few pairs are very far apart: count those of nearly the same separation, too
        self.rate = (np.convolve(contacts, window, "same") + 1) / (np.convolve(pairs, window, "same") + 100)

    def __call__(self, chain: Chain) -> np.ndarray:
        """Return scores (L, L): the logarithm of the rate."""
        place = np.arange(len(chain))
        apart = np.abs(place[:, None] - place).clip(max=len(self.rate) - 1)
        return np.log(self.rate[apart])


class ProfilePairs:
    """Log-odds of a long-range contact of two amino acids, over both profiles, plus the separation prior.

        score_ij = log rate(|i - j|) + s · p_iᵀ odds p_j

    Profiles flatten the odds that are counted with them; the scale s makes up for it. It is that of a logistic
    regression on the long-range pairs of the training chains.
    """

    def __init__(self, chains: Sequence[Chain], prior: SeparationPrior):
        self.prior = prior
        touching, all_pairs = np.ones((20, 20)), np.ones((20, 20))
        for p, i, j, contact in map(_long_range_pairs, chains):
            touching += p[i[contact]].T @ p[j[contact]]
            all_pairs += p[i].T @ p[j]
        touching, all_pairs = touching + touching.T, all_pairs + all_pairs.T
        odds = np.log(touching / touching.sum()) - np.log(all_pairs / all_pairs.sum())  # (F, F)
        self.odds = odds * self._scale(odds, chains[:: 1 + len(chains) // ENOUGH])

    def _scale(self, odds: np.ndarray, chains: Sequence[Chain]) -> float:
        """Fit the scale by Newton's method."""
        pairs = [(chain, *_long_range_pairs(chain)) for chain in chains]
        x = np.concatenate([(p @ odds @ p.T)[i, j] for _, p, i, j, _ in pairs])
        rest = np.concatenate([self.prior(chain)[i, j] for chain, _, i, j, _ in pairs])
        contact = np.concatenate([contact for *_, contact in pairs])
        scale = 1.0
        for _ in range(STEPS):
            rate = 1 / (1 + np.exp(-(scale * x + rest)))
            scale += float(((contact - rate) * x).sum() / ((rate * (1 - rate) * x * x).sum() + 1))
        return scale

    def __call__(self, chain: Chain) -> np.ndarray:
        p = frequencies(chain)
        return p @ self.odds @ p.T + self.prior(chain)  # (L, L)


def _long_range_pairs(chain: Chain) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the profile of a chain (L, F), its long-range pairs i, j of known distance, and whether they touch."""
    i, j = np.triu_indices(len(chain), LONG_RANGE)
    distance = distances(chain)[i, j]
    known = np.isfinite(distance)
    return frequencies(chain), i[known], j[known], distance[known] < CONTACT


def frequencies(chain: Chain) -> np.ndarray:
    """Return the profile of a chain, or its one-hot sequence, (L, F)."""
    return one_hot(chain.sequence) if chain.profile is None else chain.profile
