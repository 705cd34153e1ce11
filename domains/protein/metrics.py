"""What a contact prediction is worth, and the simple predictors that it has to beat.

A contact is a pair of residues whose Cβ are less than 8 Å apart (Cα for glycine); it is long-range where they are at
least 24 apart in sequence. Precision at L/k is the share of contacts among the L/k pairs i < j with the highest score,
for a chain of L residues; the mean over chains is reported. These are the conventions of CASP.

Shapes: L residues · F amino acids
"""

from collections.abc import Sequence

import numpy as np

from domains.protein.data import Chain, one_hot

CONTACT = 8.0  # Å
LONG_RANGE = 24  # residues


def distances(chain: Chain) -> np.ndarray:
    """Between the Cβ of a chain, (L, L) in Å."""
    assert chain.cb is not None, "a chain without a structure has no distances"
    return np.linalg.norm(chain.cb[:, None] - chain.cb[None], axis=-1)


def ranked(score: np.ndarray, separation: int = LONG_RANGE) -> tuple[np.ndarray, np.ndarray]:
    """The pairs i, j that are at least `separation` apart, the highest score (L, L) first."""
    i, j = np.triu_indices(len(score), separation)
    order = np.argsort(-score[i, j], kind="stable")
    return i[order], j[order]


def precision(score: np.ndarray, distance: np.ndarray, share: int) -> float:
    """Long-range precision at L / `share`, of scores (L, L) and distances (L, L) in Å."""
    length = len(score)
    i, j = ranked(score)
    top = slice(max(1, length // share))
    return float((distance[i[top], j[top]] < CONTACT).mean()) if len(i) else 0.0


class SeparationPrior:
    """How often two residues of the training chains touch, by their separation in sequence alone."""

    def __init__(self, chains: Sequence[Chain], smooth: int = 5):
        longest = max(map(len, chains))
        pairs, contacts = np.zeros(longest), np.zeros(longest)
        for chain in chains:
            i, j = np.triu_indices(len(chain))
            pairs += np.bincount(j - i, minlength=longest)
            contacts += np.bincount(j - i, distances(chain)[i, j] < CONTACT, minlength=longest)
        window = np.ones(2 * smooth + 1)  # few pairs are very far apart: count those of nearly the same separation, too
        self.rate = (np.convolve(contacts, window, "same") + 1) / (np.convolve(pairs, window, "same") + 100)

    def __call__(self, chain: Chain) -> np.ndarray:
        """Scores (L, L): the logarithm of the rate."""
        place = np.arange(len(chain))
        apart = np.abs(place[:, None] - place).clip(max=len(self.rate) - 1)
        return np.log(self.rate[apart])


class ProfilePairs:
    """Which amino acids touch at long range: log-odds of a contact, over both profiles, plus the separation prior."""

    def __init__(self, chains: Sequence[Chain], prior: SeparationPrior):
        self.prior = prior
        touching, all_pairs = np.ones((20, 20)), np.ones((20, 20))
        for chain in chains:
            i, j = np.triu_indices(len(chain), LONG_RANGE)
            contact = distances(chain)[i, j] < CONTACT
            p = _frequencies(chain)
            touching += p[i[contact]].T @ p[j[contact]]
            all_pairs += p[i].T @ p[j]
        touching, all_pairs = touching + touching.T, all_pairs + all_pairs.T
        self.odds = np.log(touching / touching.sum()) - np.log(all_pairs / all_pairs.sum())  # (F, F)

    def __call__(self, chain: Chain) -> np.ndarray:
        p = _frequencies(chain)
        return p @ self.odds @ p.T + self.prior(chain)  # (L, L)


def _frequencies(chain: Chain) -> np.ndarray:
    return one_hot(chain.sequence) if chain.profile is None else chain.profile
