"""The configuration of the protein domain: plain dataclasses, without torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    bundled = "bundled"  # 1,000 PDB chains of at most 150 residues, bundled with the project
    packs = "packs"  # a folder of .npz.xz packs: train*, and val for the test split
    promod3 = "promod3"  # the 21,119 chains of Debian's promod3-data, from its .deb
    structures = "structures"  # a folder of PDB, mmCIF and BinaryCIF files


class Channel(Enum):
    """Inputs of the model beside the sequence and the profile."""

    baseline = "baseline"  # log-odds of a contact, by separation and profiles; the untrained model predicts it
    sites = "sites"  # per residue: gaps and insertions in the alignment, and its depth
    covariance = "covariance"  # per pair, from an alignment, with average product correction
    inverse = "inverse"  # per pair: the inverse covariance
    blocks = "blocks"  # per pair: all 441 covariances


@dataclass
class DataConfig:
    """The chains, and how the model sees them."""

    domain: str = "protein"
    source: Source = Source.bundled
    path: str | None = None  # path of the packs, the .deb file or the structures
    alignments: str | None = None  # a folder of NAME.a3m or of .tar.xz archives; trains on chains with an alignment
    # inputs beside the sequence and the profile: baseline, sites, covariance, inverse, blocks
    channels: list[Channel] = field(default_factory=list)
    val_share: float = 0.1  # share of the chains, where the source has no such split; whole clusters of similar chains
    test_share: float = 0.1  # likewise
    crop_size: int = 64  # residues of a training sample: two segments of half that length, from anywhere in the chain
    batch_size: int = 8  # chains per training step, over all devices
    workers: int = 0  # processes that prepare batches; 0: in the training process
    sequence_only: float = 0.25  # share of training samples without profile and alignment


class Bins(Enum):
    """The bins of the distance between two residues."""

    alphafold = "alphafold"  # 64 bins: edges from 2.3125 to 21.6875 Å, 0.3125 apart
    trrosetta = "trrosetta"  # 37 bins: 2.5 to 20 Å, 0.5 apart
    coarse = "coarse"  # 18 bins: 4 to 20 Å, 1 apart


class OuterProductKind(Enum):
    """The map from two residues to a pair."""

    low_rank = "low_rank"  # a low-rank bilinear form for each feature
    full = "full"  # all products of a few features (AlphaFold's outer product mean)


@dataclass
class ModelConfig(TransformerConfig):
    """Residue-pair attention: `dim` is the width of a residue, `pair_dim` that of a pair of residues."""

    needs: ClassVar[frozenset[str]] = frozenset(
        {"full", "padding", "bias"}
    )  # capabilities that the mixer needs (core/config.py)
    domain: str = "protein"
    pair_dim: int = 16  # width of a pair
    conv_radius: int = 7  # residues on each side in the convolution that embeds a residue
    max_relative_position: int = 32  # relative positions are clipped to ± this value
    bins: Bins = Bins.alphafold
    outer_product: OuterProductKind = OuterProductKind.low_rank
    triangle_multiplication: bool = True  # triangle multiplicative updates of the pairs
    triangle_attention_interval: int = 0  # triangle attention in every n-th block; 0: in none
    bias_rank: int | None = None  # rank of the attention bias from the pairs; exact if None
