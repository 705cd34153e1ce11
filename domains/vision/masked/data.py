"""Images, and the noise that decides which of their patches are masked."""

from collections.abc import Sequence

import numpy as np
import torch

from domains.adapter import Batch
from domains.sampling import Rngs
from domains.vision import data as vision


class Data(vision.Data):
    """The images of the domain with noise (B, Y, X) in [0, 1): a patch is masked where it is high.

    Training draws it again at every step, from the generator of the sample; elsewhere each image keeps its own.
    """

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        draws = None if rngs is None else list(rngs)
        batch = super().batch(split, indices, None if draws is None else iter(draws))
        draws = draws or [np.random.default_rng(int(n)) for n in self.images.splits[split][list(indices)]]
        noise = np.stack([rng.random(self.images.shape[1:], np.float32) for rng in draws])
        return batch | {"noise": torch.from_numpy(noise)}
