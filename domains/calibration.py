"""Predicted probabilities beside how often the predictions were right.

Shapes: N predictions · M bins
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Reliability(NamedTuple):
    """Predictions in bins of equal width by their probability: how many, their mean, and the share that is right.

    torchmetrics has the error alone, and puts a probability of 1 into a bin of its own.
    """

    counts: np.ndarray  # (M,)
    confidence: np.ndarray  # (M,); 0 in an empty bin, and so is the accuracy
    accuracy: np.ndarray  # (M,)

    @property
    def error(self) -> float:
        """The expected calibration error Σ n_m / N |accuracy_m - confidence_m|, in [0, 1] (Guo et al. 2017, eq. 3)."""
        return float((self.counts * np.abs(self.accuracy - self.confidence)).sum() / max(1, self.counts.sum()))


def reliability(chance: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int) -> Reliability:
    """Bin m holds those with P in ((m - 1) / M, m / M]."""
    where = np.digitize(chance, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(where, minlength=bins)
    confidence, accuracy = (np.bincount(where, values, bins) / np.maximum(counts, 1) for values in (chance, right))
    return Reliability(counts, confidence, accuracy)
