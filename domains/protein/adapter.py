"""Residue-pair attention on the shared core.

Shapes: B batch · N residues of the longest chain · L residues that the model sees · C residue width · P pair width ·
F = 20 amino acids · E channels of a pair · K bins of distance · S = 8 states of secondary structure
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.cache import BlockCache, Cache
from core.config import PositionConfig
from core.layers import Transformer, add_biases
from core.masks import Mask, NoMask, Padding
from core.positions import Learned, make_position
from core.probe import Probe
from domains.adapter import Batch, DomainAdapter, Loss, Tokens
from domains.protein.config import Bins, Channel, ModelConfig
from domains.protein.data import SITES, pair_width
from domains.protein.metrics import CONTACT, NEAR, precision
from domains.protein.pair import PairBlock, by_rows, make_outer

STATES_WEIGHT = 0.2  # of secondary structure in the loss, where the training chains have it
NEAR_WEIGHT = 0.1  # in the loss, of pairs fewer than 6 residues apart, which are easy and say little
EDGES = {  # (K - 1,) each, Å: between the bins, of which the first begins at 0 and the last has no end
    Bins.alphafold: np.linspace(2.3125, 21.6875, 63),
    Bins.trrosetta: np.linspace(2.5, 20, 36),
    Bins.coarse: np.linspace(4, 20, 17),
}


class Prediction(NamedTuple):
    """What the model says."""

    distance: Tensor  # (B, L, L, K), logits of the distance between the Cβ of every two residues
    states: Tensor | None  # (B, L, S), logits of the secondary structure, if the training chains had one


def places(adapter: "Adapter") -> float:
    """For how many residues the model has learned positions; inf if it has none that are learned."""
    return min((part.extent[0] for part in adapter.modules() if isinstance(part, Learned)), default=inf)


class Baseline(nn.Module):
    """What is known of a pair before any training, as logits of its distance: those of a contact, and 0 elsewhere.

        b_ij = log rate(|i - j|) + p_iᵀ odds p_j,   P(contact) = σ(b_ij)

    Args:
        rate: how often residues so far apart in sequence touch; the last entry stands for all larger separations.
        odds: (F, F) log-odds of a contact between two amino acids.
        edges: (K - 1,), of the bins of distance.
    """

    def __init__(self, rate: list[float], odds: list[list[float]], edges: np.ndarray):
        super().__init__()
        self.below = int((edges <= CONTACT).sum())  # bins that are contacts
        self.rate: Tensor
        self.odds: Tensor
        self.register_buffer("rate", torch.tensor(rate).log(), persistent=False)
        self.register_buffer("odds", torch.tensor(odds), persistent=False)
        share = torch.full((len(edges) + 1,), 1 / self.below)  # of P(contact), and of the rest, in each bin
        share[self.below :] = 1 / len(share[self.below :])
        self.share = nn.Parameter(share.log())

    def forward(self, p: Tensor, place: Tensor) -> Tensor:
        """p (B, L, F), place (B, L) -> (B, L, L)"""
        apart = (place[:, None] - place[:, :, None]).abs().clamp(max=len(self.rate) - 1)
        return p @ self.odds @ p.mT + self.rate[apart]

    def logits(self, b: Tensor) -> Tensor:
        """(B, L, L) -> (B, L, L, K)"""
        return b[..., None] * (torch.arange(len(self.share), device=b.device) < self.below) + self.share


class Adapter(DomainAdapter[Prediction]):
    """Residues attend to each other under a bias from a pair representation that they update; its end is a distogram,
    and theirs the secondary structure.

    Source: the Evoformer of Jumper et al. 2021, with one profile for the alignment.

    Args:
        config: sizes and choices.
        position: how residues know where they are, beside the separations that the pairs know.
        spec: {"letters", "longest"} of the data: the order of amino acids, and the most residues a chain of theirs has;
            and what else the data say of residues and pairs: {"channels", "baseline", "states"}, where they do.
    Raises:
        ValueError: for sizes that cannot be.
    """

    metric_names = ("long_range_precision", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        if config.pair_dim < 2 or config.pair_dim % 2 or config.reach < 1 or config.neighbourhood < 0:
            raise ValueError(
                "model.pair_dim must be even and at least 2, model.reach at least 1 and model.neighbourhood at least 0"
            )
        if config.triangle_attention < 0:
            raise ValueError(f"model.triangle_attention={config.triangle_attention} must be 0, for none, or at least 1")
        C, P, self.config, self.kinds = config.dim, config.pair_dim, config, len(spec["letters"])
        self.edges: Tensor
        edges = EDGES[config.bins]
        self.register_buffer("edges", torch.tensor(edges).float(), persistent=False)
        low, high = np.r_[0, edges], np.r_[edges, np.inf]
        self.inside: Tensor  # what share of each bin lies below 8 Å
        self.register_buffer(
            "inside", torch.tensor((CONTACT - low) / (high - low)).clamp(0, 1).float(), persistent=False
        )
        self.channels = [Channel(name) for name in spec.get("channels", ())]
        sites = SITES if Channel.sites in self.channels else 0
        near = config.neighbourhood
        self.embed = nn.Conv1d(2 * self.kinds + sites, C, 2 * near + 1, padding=near)
        self.embed_norm = nn.LayerNorm(C)
        self.apart = nn.Embedding(2 * config.reach + 1, P)
        nn.init.normal_(self.apart.weight, std=0.3)  # no louder than what the residues say
        self.first = make_outer(config)
        every = config.triangle_attention
        self.blocks = nn.ModuleList(
            PairBlock(config, every > 0 and n % every == every - 1) for n in range(config.depth)
        )
        self.transformer = Transformer(config, make_position(position, config, (spec["longest"],)))
        self.last = make_outer(config)
        self.norm = nn.LayerNorm(P)
        self.distogram = nn.Linear(P, len(edges) + 1)
        self.states = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, len(spec["states"]))) if "states" in spec else None
        E = pair_width(self.channels)
        self.pairs = nn.Linear(E, P, bias=False) if E else None
        self.baseline = Baseline(**spec["baseline"], edges=edges) if Channel.baseline in self.channels else None
        if self.baseline is not None:  # what is predicted at first is what the baseline says
            self.told = nn.Linear(1, P, bias=False)
            nn.init.zeros_(self.distogram.weight)
            nn.init.zeros_(self.distogram.bias)

    def forward(
        self,
        batch: Batch,
        *,
        mask: Mask = NoMask(),
        cache: Cache[BlockCache] | None = None,
        probe: Probe | None = None,
        last: int | None = None,
    ) -> Prediction:
        """Pair block, Transformer block, pair block …: each updates its own and reads the other."""
        assert (cache, last) == (None, None), "every residue sees every other"
        tokens, valid = self.tokens(batch), batch["valid"]
        x, blocks = self.transformer.prepare(tokens.x, positions=tokens.positions, mask=tokens.mask & mask, probe=probe)
        z, baseline = self.pair_representation(batch, tokens.x)  # (B, L, L, P), (B, L, L)
        pair_mask = (valid[:, :, None] & valid[:, None, :])[..., None].to(z.dtype)  # (B, L, L, 1)
        for pair_block, (block, inputs) in zip(self.blocks, blocks, strict=True):
            z, bias = pair_block(z, x, pair_mask)  # (B, L, L, P), (B, H, L, L)
            x = block(x, **inputs | {"bias": add_biases(inputs["bias"], bias)})  # (B, L, C)
        x = self.transformer.norm(x)
        z = z + self.last(x)
        logits = by_rows(lambda z: self.distogram(self.norm(z)), z + z.transpose(1, 2))  # a distance has no direction
        if self.baseline is not None and baseline is not None:
            logits = logits + self.baseline.logits((baseline + baseline.mT) / 2)
        return Prediction(logits, None if self.states is None else self.states(x))

    def tokens(self, batch: Batch) -> Tokens:
        """A token is made of the sequence and profile around a residue."""
        place, valid = batch["place"], batch["valid"]  # (B, L)
        own = F.one_hot(batch["sequence"], self.kinds + 1)[..., :-1]  # (B, N, F); zeros for an unknown residue
        known = [batch["sites"]] if Channel.sites in self.channels else []
        chain = torch.cat([own.to(batch["profile"].dtype), batch["profile"], *known], -1)  # (B, N, 2F), or 3 more
        x = self.embed_norm(self.embed(chain.mT).mT)  # (B, N, C)
        x = x.gather(1, place[..., None].expand(-1, -1, x.shape[-1]))  # (B, L, C)
        return Tokens(x, Padding(valid), positions=place[..., None])

    def pair_representation(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pairs of tokens x (B, L, C) and of their separation, (B, L, L, P); and the baseline (B, L, L), if any."""
        place, reach = batch["place"], self.config.reach
        separation = (place[:, None] - place[:, :, None]).clamp(-reach, reach)  # j - i
        z = self.apart(separation + reach) + self.first(x)  # (B, L, L, P)
        if self.pairs is not None:
            z = z + self.pairs(batch["pairs"])
        if self.baseline is None:
            return z, None
        p = batch["profile"].gather(1, place[..., None].expand(-1, -1, self.kinds))  # (B, L, F)
        baseline = self.baseline(p, place)
        return z + self.told(baseline[..., None]), baseline

    def loss(self, predictions: Prediction, batch: Batch) -> Loss:
        """The surprise of distances, and that of secondary structure with its own weight, in nats."""
        weight = self.weight(batch)
        distance = Loss.of((self.surprise(predictions, batch) * weight).sum(), weight.sum())
        if predictions.states is None or "states" not in batch:
            return distance
        known = (batch["states"] >= 0).sum()
        wrong = F.cross_entropy(predictions.states.mT.float(), batch["states"], ignore_index=-1, reduction="sum")
        return Loss.joined([distance, Loss.of(STATES_WEIGHT * wrong, known)])

    def metrics(self, predictions: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Of each chain: long-range precision at L/5, and the loss."""
        weight, surprise = self.weight(batch), self.surprise(predictions, batch)
        contact, distance = (x.float().cpu().numpy() for x in (self.contacts(predictions), batch["distance"]))
        lengths = enumerate(batch["valid"].sum(1).tolist())
        return {
            "long_range_precision": torch.tensor(
                [precision(contact[b, :n, :n], distance[b, :n, :n], 5) for b, n in lengths]
            ),
            "loss": (surprise * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1),
        }

    def contacts(self, predictions: Prediction) -> Tensor:
        """P(contact), (B, L, L): the sum of all bins below 8 Å; of a bin that reaches beyond, in proportion."""
        distance = predictions.distance
        with torch.autocast(distance.device.type, enabled=False):  # it would take products in bfloat16
            return distance.float().softmax(-1) @ self.inside.float()

    def surprise(self, predictions: Prediction, batch: Batch) -> Tensor:
        """Cross-entropy of the true bin, (B, L, L), in nats."""
        bins = torch.bucketize(batch["distance"], self.edges, right=True)  # (B, L, L)
        return F.cross_entropy(predictions.distance.float().permute(0, 3, 1, 2), bins, reduction="none")

    def weight(self, batch: Batch) -> Tensor:
        """How much each pair counts in the loss, (B, L, L); each is there twice."""
        place, valid = batch["place"], batch["valid"]
        separation = (place[:, None] - place[:, :, None]).abs()
        real = valid[:, :, None] & valid[:, None] & (separation > 0) & batch["distance"].isfinite()
        return real * torch.where(separation < NEAR, NEAR_WEIGHT, 1.0)
