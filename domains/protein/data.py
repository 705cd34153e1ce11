"""Protein chains in three splits, as batches.

`chains.npz`, beside this file, holds 1,000 gap-free PDB chains of 40 to 150 residues as plain arrays; `bundle.py` makes
it and NOTICE names its source:

    split, name, length   one entry a chain: train, val or test; PDB id and chain, as in 1ABC_A; residues
    sequence (R,)         letters of all chains, concatenated, as bytes
    profile (20, R)       frequency of each amino acid in the alignment, in 1/255
    backbone (3, 3R)      steps from atom to atom along N, CA, C, N, CA, C …, in 0.01 Å, the first atom of a chain at 0

Shapes: B batch · N residues of the longest chain · L residues that the model sees · F = 20 amino acids ·
E channels of a pair
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from domains.adapter import Batch
from domains.data import DomainData
from domains.protein import features
from domains.protein.alignment import Alignment
from domains.protein.alphabet import AMINO_ACIDS, SS8_STATES, UNKNOWN
from domains.protein.chain import Chain, one_hot
from domains.protein.config import Channel, DataConfig
from domains.protein.metrics import ProfilePairs, SeparationPrior
from domains.protein.sources import load_splits
from domains.sampling import Rngs

SITES = 3  # numbers of Channel.sites
WIDTH = {Channel.covariance: 1, Channel.inverse: 1, Channel.blocks: 441}  # numbers of a pair
CACHE_SIZE = 4096  # maps that stay in memory


class Data(DomainData):
    """Chains from `data.source`. The splits are the same for every seed.

    A batch holds whole chains, and the indices of the residues that the model sees:

        sequence (B, N), profile (B, N, F)   the chains, padded with UNKNOWN and 0
        residue_index (B, L), seq_mask (B, L)  the residues seen; False on padding
        distance (B, L, L)                   between their Cβ, in Å; NaN for unresolved residues
        ss8 (B, L)                           secondary structure, if a chain has it; -1 where unknown
        site_features (B, N, 3), pair_features (B, L, L, E)  of alignments, if in data.channels; 0 without an alignment
    """

    config: DataConfig

    def setup(self, stage: str | None = None) -> None:
        c = self.config
        if c.crop_size < 2 or c.crop_size % 2:
            raise ValueError(f"data.crop_size={c.crop_size} must be an even number of residues, at least 2")
        if not 0 <= c.sequence_only <= 1:
            raise ValueError(f"data.sequence_only={c.sequence_only} is a share of the samples and must lie in [0, 1]")
        if not hasattr(self, "splits"):
            self.splits = load_splits(c)

    def spec(self):
        """Return the alphabet, the length of the longest chain, the channels, and the parameters of the baseline."""
        spec = {
            "alphabet": AMINO_ACIDS,
            "max_length": max(len(chain) for part in self.splits.values() for chain in part),
        }
        if any(chain.ss8 is not None for chain in self.splits["train"]):
            spec["ss8"] = SS8_STATES
        if self.config.channels:
            spec["channels"] = [channel.value for channel in self.config.channels]
        if Channel.baseline in self.config.channels:
            prior = SeparationPrior(self.splits["train"])
            odds = ProfilePairs(self.splits["train"], prior).odds
            spec["baseline"] = {"rate": prior.rate.tolist(), "odds": odds.tolist()}
        return spec

    def size(self, split):
        return len(self.splits[split])

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Batch:
        chains, channels = [self.splits[split][i] for i in indices], self.config.channels
        if rngs is None:
            return collate(chains, channels=channels)
        places = []
        for n, rng in zip(range(len(chains)), rngs, strict=True):
            places.append(two_stretches(len(chains[n]), self.config.crop_size, rng))
            if rng.random() < self.config.sequence_only:
                chains[n] = sequence_alone(chains[n])
        return collate(chains, places, channels)


def collate(
    chains: Sequence[Chain], places: Sequence[np.ndarray] | None = None, channels: Sequence[Channel] = ()
) -> Batch:
    """Return a batch of chains of which the model sees the residues `places`: all of them if None."""
    places = [np.arange(len(chain)) for chain in chains] if places is None else places
    B, N, L = len(chains), max(map(len, chains)), max(map(len, places))
    sequence = np.full((B, N), UNKNOWN, np.int64)
    profile = np.zeros((B, N, len(AMINO_ACIDS)), np.float32)
    residue_index, seq_mask = np.zeros((B, L), np.int64), np.zeros((B, L), bool)
    cb = np.zeros((B, L, 3), np.float32)
    for b, (chain, seen) in enumerate(zip(chains, places, strict=True)):
        sequence[b, : len(chain)] = chain.sequence
        profile[b, : len(chain)] = one_hot(chain.sequence) if chain.profile is None else chain.profile
        residue_index[b, : len(seen)], seq_mask[b, : len(seen)] = seen, True
        if chain.cb is not None:
            cb[b, : len(seen)] = chain.cb[seen]
    batch = {"sequence": sequence, "profile": profile, "residue_index": residue_index, "seq_mask": seq_mask}
    if all(chain.cb is not None for chain in chains):
        batch["distance"] = np.linalg.norm(cb[:, :, None] - cb[:, None], axis=-1)  # (B, L, L)
    if any(chain.ss8 is not None for chain in chains):
        batch["ss8"] = np.full((B, L), -1)
    if Channel.sites in channels:
        batch["site_features"] = np.zeros((B, N, SITES), np.float32)
    if of_pairs := [channel for channel in channels if channel in WIDTH]:
        batch["pair_features"] = np.zeros((B, L, L, pair_width(channels)), np.float32)
    for b, (chain, seen) in enumerate(zip(chains, places, strict=True)):
        if chain.ss8 is not None:
            batch["ss8"][b, : len(seen)] = chain.ss8[seen]
        if chain.alignment is not None and Channel.sites in channels:
            batch["site_features"][b, : len(chain)] = features.site_features(chain.alignment)
        if chain.alignment is not None and of_pairs:
            batch["pair_features"][b, : len(seen), : len(seen)] = np.concatenate(
                [pair_channel(chain.alignment, channel, seen) for channel in of_pairs], -1
            )
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def pair_width(channels: Sequence[Channel]) -> int:
    """Return the number of pair features of these channels, E."""
    return sum(WIDTH.get(channel, 0) for channel in channels)


def pair_channel(alignment: Alignment, channel: Channel, seen: np.ndarray) -> np.ndarray:
    """Return the features of a channel for each pair of the residues `seen`, (L, L, WIDTH of the channel)."""
    if channel is Channel.blocks:
        return features.covariance_blocks(alignment, seen)
    return standard_map(alignment, channel)[np.ix_(seen, seen)][..., None].astype(np.float32)


@lru_cache(CACHE_SIZE)
def standard_map(alignment: Alignment, channel: Channel) -> np.ndarray:
    """Return the coupling of each pair of residues (N, N), in standard deviations over the chain."""
    scores = (features.covariance if channel is Channel.covariance else features.inverse_covariance)(alignment)
    return (scores / max(float(scores.std()), 1e-6)).astype(np.float16)  # their mean is 0 after APC, or nearly


def two_stretches(length: int, crop_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `crop_size` residues of a chain of `length`, in two segments, or all of them if the chain is shorter.

    The gap between the segments is uniformly distributed, so that contacts at all separations are seen; one segment
    would show none beyond its own length.
    """
    if length <= crop_size:
        return np.arange(length)
    half = crop_size // 2
    gap = rng.integers(0, length - crop_size + 1)
    first = rng.integers(0, length - crop_size - gap + 1)
    return np.concatenate([np.arange(half) + first, np.arange(half) + first + half + gap])


def sequence_alone(chain: Chain) -> Chain:
    return replace(chain, profile=None, alignment=None)
