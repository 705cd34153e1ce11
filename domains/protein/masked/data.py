"""Sequences of a FASTA file in three splits, with masked residues.

Shapes: B batch · L tokens of the longest sample, <cls> and <eos> among them
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from domains.adapter import Batch
from domains.data import DomainData
from domains.data_warnings import warn_data
from domains.protein.chain import to_letters
from domains.protein.clusters import check_filled, check_shares, split_by_cluster
from domains.protein.files import read_chains
from domains.protein.language import IGNORE_INDEX, MASK_TOKEN_PROBABILITY, MAX_TOKENS, PAD, encode, mask_tokens
from domains.protein.masked.config import DataConfig
from domains.sampling import Rngs, StepDataset, shuffled

POOL_BATCHES = 50  # batches that are sorted by length together


class Data(DomainData):
    """The sequences of `data.path`. The splits are the same for every seed, and so are the masks of val and test.

    A batch is {"tokens", "targets"}, both (B, L): the inputs, and the targets, IGNORE_INDEX elsewhere. In val and test
    all targets are replaced by <mask>.
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        c = self.config
        if not 1 <= c.max_length <= MAX_TOKENS - 2:
            raise ValueError(f"data.max_length={c.max_length} must be 1 to {MAX_TOKENS - 2} residues")
        check_shares(c.val_share, c.test_share)
        if c.path is None or not Path(c.path).is_file():
            raise ValueError(f"data.path={c.path} is not there; give a FASTA file, also as .gz or .xz")
        if not hasattr(self, "splits"):
            chains = read_chains(c.path)
            if cut := [chain.name for chain in chains if len(chain) > c.max_length]:
                warn_data(
                    f"{c.path}: {len(cut)} of {len(chains)} sequences (first: {cut[0]}) are longer than "
                    f"data.max_length={c.max_length} residues; of each a stretch of that length is shown at a time"
                )
            splits = split_by_cluster(chains, c.val_share, c.test_share)
            check_filled(splits)
            self.splits = {split: [to_letters(chain.sequence) for chain in part] for split, part in splits.items()}

    def spec(self):
        return {}

    def size(self, split):
        return len(self.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        rngs = (np.random.default_rng(index) for index in indices) if rngs is None else rngs
        mask_token_probability = (
            MASK_TOKEN_PROBABILITY if split == "train" else 1.0
        )  # a visible target measures nothing
        of = self.splits[split]
        samples = [
            self._sample(of[index], rng, mask_token_probability) for index, rng in zip(indices, rngs, strict=False)
        ]
        return {
            "tokens": pad_sequence([s["tokens"][0] for s in samples], True, PAD),
            "targets": pad_sequence([s["targets"][0] for s in samples], True, IGNORE_INDEX),
        }

    def _sample(self, sequence: str, rng: np.random.Generator, mask_token_probability: float) -> dict[str, Tensor]:
        start = int(rng.integers(0, max(0, len(sequence) - self.config.max_length) + 1))
        tokens = encode([sequence[start : start + self.config.max_length]])  # (1, L)
        return mask_tokens(tokens, torch.Generator().manual_seed(int(rng.integers(2**62))), mask_token_probability)

    def train_dataloader(self, *given: int, **named: int) -> DataLoader[Batch]:
        loader = super().train_dataloader(*given, **named)
        assert isinstance(loader.dataset, StepDataset)
        lengths = np.array([min(len(sequence), self.config.max_length) for sequence in self.splits["train"]])
        step_dataset = LengthGroupedSteps(loader.dataset, lengths)
        self.step_datasets = [step_dataset]
        return self._loader(step_dataset, loader.sampler)


class LengthGroupedSteps(Dataset):
    """Length-grouped batches: the samples of a step have nearly the same length.

    An epoch is cut into pools of some batches; a pool is sorted by length, and its batches are shuffled. The order
    depends on the seed and the step alone.

    Args:
        steps: the plain order.
        lengths: of each sample.
    """

    def __init__(self, steps: StepDataset, lengths: np.ndarray):
        self.steps, self.lengths, self.orders, self.progress = steps, lengths, {}, steps.progress

    def __getitem__(self, step: int) -> Batch:
        return self.steps.read(step, self.indices(step))

    def indices(self, step: int) -> list[int]:
        size = self.steps.size
        return [int(self.order(n // size)[n % size]) for n in self.steps.numbers(step)]

    def order(self, epoch: int) -> np.ndarray:
        if epoch not in self.orders:
            size, batch, seed = self.steps.size, self.steps.batch_size, self.steps.seed
            plain, rng = shuffled(size, seed, epoch), np.random.default_rng((seed, epoch))
            seam = -epoch * size % batch  # these fill the last step of the pass before
            parts = [plain[:seam]]
            for start in range(seam, size, POOL_BATCHES * batch):
                pool = plain[start : start + POOL_BATCHES * batch]
                pool = pool[np.argsort(self.lengths[pool], kind="stable")]
                batches = pool[: len(pool) // batch * batch].reshape(-1, batch)
                parts += [*rng.permutation(batches), pool[batches.size :]]
            before = {other: order for other, order in self.orders.items() if other == epoch - 1}
            self.orders = before | {epoch: np.concatenate(parts)}
        return self.orders[epoch]
