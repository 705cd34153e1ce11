"""What configures the protein domain: plain dataclasses, free of torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    bundled = "bundled"  # 1,000 PDB chains of at most 150 residues that come with the project
    packs = "packs"  # a folder of .npz.xz packs: train*, and val for the test split
    promod3 = "promod3"  # the 21,119 chains of Debian's promod3-data, from its .deb
    structures = "structures"  # a folder of one's own PDB, mmCIF and BinaryCIF files


class Channel(Enum):
    """What the model is told beside the sequence and the profile."""

    baseline = "baseline"  # log-odds of a contact, by separation and profiles; the untrained model says just that
    sites = "sites"  # of each residue: gaps and insertions in its alignment, and how deep that is
    covariance = "covariance"  # of each pair, from an alignment, with average product correction
    inverse = "inverse"  # the same of the inverse covariance
    blocks = "blocks"  # all 441 covariances of each pair


@dataclass
class DataConfig:
    """Which chains, and how much of each the model sees at once."""

    domain: str = "protein"
    source: Source = Source.bundled
    path: str | None = None  # of the packs, the .deb or the structures
    alignments: str | None = None  # a folder of NAME.a3m, or of .tar.xz with such; trains on chains that have one
    # what the model is told beside the sequence and the profile: baseline, sites, covariance, inverse, blocks
    channels: list[Channel] = field(default_factory=list)
    val_share: float = 0.1  # of the chains, where the source has no such split; whole clusters of similar chains
    test_share: float = 0.1  # likewise
    crop: int = 64  # residues of a training sample: two stretches of half that length, from anywhere in the chain
    batch_size: int = 8  # chains a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself
    sequence_only: float = 0.25  # share of training samples that must do without their profile and alignment


class Bins(Enum):
    """Of the distance between two residues."""

    alphafold = "alphafold"  # 64: their borders are 2.3125 to 21.6875 Å, 0.3125 apart
    trrosetta = "trrosetta"  # 37: 2.5 to 20 Å, 0.5 apart
    coarse = "coarse"  # 18: 4 to 20 Å, 1 apart


class Product(Enum):
    """How two residues become a pair."""

    rank = "rank"  # a bilinear form of low rank for each feature
    outer = "outer"  # all products of a few features (AlphaFold's outer product mean)


@dataclass
class ModelConfig(TransformerConfig):
    """Residue-pair attention: `dim` is the width of a residue, `pair_dim` that of a pair of residues."""

    needs: ClassVar[frozenset[str]] = frozenset({"full", "padding", "bias"})  # of a mixer (core/config.py)
    domain: str = "protein"
    pair_dim: int = 16  # width of a pair
    neighbourhood: int = 7  # residues to each side that a residue's token is made of
    reach: int = 32  # separations in sequence beyond this look alike to the first pair representation
    bins: Bins = Bins.alphafold
    product: Product = Product.rank
    triangles: bool = True  # pairs learn from the two others of each triangle, by multiplication
    triangle_attention: int = 0  # and by attention, in every so many-th block; 0: in none
    bias_rank: int | None = None  # of the attention bias that pairs give; exact if None
