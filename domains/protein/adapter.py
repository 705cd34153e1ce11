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
from domains.protein.pair import PairBlock, in_row_chunks, make_outer_product

SS8_WEIGHT = 0.2  # weight of secondary structure in the loss, where the training chains have it
NEAR_WEIGHT = 0.1  # weight in the loss of pairs fewer than 6 residues apart, which are easy
BIN_EDGES = {  # (K - 1,) each, in Å; the first bin begins at 0, the last has no end
    Bins.alphafold: np.linspace(2.3125, 21.6875, 63),
    Bins.trrosetta: np.linspace(2.5, 20, 36),
    Bins.coarse: np.linspace(4, 20, 17),
}


class Prediction(NamedTuple):
    """The outputs of the model."""

    distance: Tensor  # (B, L, L, K), logits of the distance between the Cβ of every two residues
    ss8: Tensor | None  # (B, L, S), logits of the secondary structure, if the training chains had one


def max_positions(adapter: "Adapter") -> float:
    """Return the number of residues that the model has learned positions for; inf without learned positions."""
    return min((part.extent[0] for part in adapter.modules() if isinstance(part, Learned)), default=inf)


class Baseline(nn.Module):
    """Logits of the distance of a pair without a network: log-odds of a contact in the contact bins, 0 in the others.

        b_ij = log rate(|i - j|) + p_iᵀ odds p_j,   P(contact) = σ(b_ij)

    Args:
        rate: probability of a contact by separation in sequence; the last entry is for all larger separations.
        odds: (F, F) log-odds of a contact between two amino acids.
        bin_edges: (K - 1,), of the distance bins, in Å.
    """

    def __init__(self, rate: list[float], odds: list[list[float]], bin_edges: np.ndarray):
        super().__init__()
        self.num_contact_bins = int((bin_edges <= CONTACT).sum())  # bins that are contacts
        self.rate: Tensor
        self.odds: Tensor
        self.register_buffer("rate", torch.tensor(rate).log(), persistent=False)
        self.register_buffer("odds", torch.tensor(odds), persistent=False)
        bin_share = torch.full(
            (len(bin_edges) + 1,), 1 / self.num_contact_bins
        )  # of P(contact), and of the rest, in each bin
        bin_share[self.num_contact_bins :] = 1 / len(bin_share[self.num_contact_bins :])
        self.bin_log_share = nn.Parameter(bin_share.log())

    def forward(self, p: Tensor, residue_index: Tensor) -> Tensor:
        """Return log-odds (B, L, L) for profiles p (B, L, F) and residue_index (B, L)."""
        separation = (residue_index[:, None] - residue_index[:, :, None]).abs().clamp(max=len(self.rate) - 1)
        return p @ self.odds @ p.mT + self.rate[separation]

    def logits(self, b: Tensor) -> Tensor:
        """Return logits (B, L, L, K) for log-odds (B, L, L)."""
        return (
            b[..., None] * (torch.arange(len(self.bin_log_share), device=b.device) < self.num_contact_bins)
            + self.bin_log_share
        )


class Adapter(DomainAdapter[Prediction]):
    """Residue-pair attention: the pair representation gives the attention bias, and is updated by the residues.

    The pairs predict a distogram, the residues the secondary structure. Source: the Evoformer of Jumper et al. 2021,
    with a profile in place of the alignment.

    Args:
        config: sizes and choices.
        position: the position embedding of residues, beside the relative positions of the pairs.
        spec: the data's {"alphabet", "max_length"}: the order of amino acids and the length of the longest chain; and
            optional {"channels", "baseline", "ss8"}.
    Raises:
        ValueError: for invalid sizes.
    """

    metric_names = ("long_range_precision", "loss")

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        if config.pair_dim < 2 or config.pair_dim % 2 or config.max_relative_position < 1 or config.conv_radius < 0:
            raise ValueError(
                "model.pair_dim must be even and at least 2, model.max_relative_position at least 1 and"
                " model.conv_radius at least 0"
            )
        if config.triangle_attention_interval < 0:
            raise ValueError(
                f"model.triangle_attention_interval={config.triangle_attention_interval} must be 0, for none,"
                " or at least 1"
            )
        C, P, self.config, self.num_amino_acids = config.dim, config.pair_dim, config, len(spec["alphabet"])
        self.bin_edges: Tensor
        bin_edges = BIN_EDGES[config.bins]
        self.register_buffer("bin_edges", torch.tensor(bin_edges).float(), persistent=False)
        low, high = np.r_[0, bin_edges], np.r_[bin_edges, np.inf]
        self.contact_fraction: Tensor  # the share of each bin that lies below 8 Å
        self.register_buffer(
            "contact_fraction", torch.tensor((CONTACT - low) / (high - low)).clamp(0, 1).float(), persistent=False
        )
        self.channels = [Channel(name) for name in spec.get("channels", ())]
        sites = SITES if Channel.sites in self.channels else 0
        radius = config.conv_radius
        self.embed = nn.Conv1d(2 * self.num_amino_acids + sites, C, 2 * radius + 1, padding=radius)
        self.embed_norm = nn.LayerNorm(C)
        self.relative_position = nn.Embedding(2 * config.max_relative_position + 1, P)
        nn.init.normal_(self.relative_position.weight, std=0.3)  # as large as the contribution of the residues
        self.outer_product_in = make_outer_product(config)
        interval = config.triangle_attention_interval
        self.blocks = nn.ModuleList(
            PairBlock(config, interval > 0 and n % interval == interval - 1) for n in range(config.depth)
        )
        self.transformer = Transformer(config, make_position(position, config, (spec["max_length"],)))
        self.outer_product_out = make_outer_product(config)
        self.norm = nn.LayerNorm(P)
        self.distogram = nn.Linear(P, len(bin_edges) + 1)
        self.ss8_head = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, len(spec["ss8"]))) if "ss8" in spec else None
        E = pair_width(self.channels)
        self.pair_feature_embed = nn.Linear(E, P, bias=False) if E else None
        self.baseline = Baseline(**spec["baseline"], bin_edges=bin_edges) if Channel.baseline in self.channels else None
        if self.baseline is not None:  # the untrained model predicts the baseline
            self.baseline_embed = nn.Linear(1, P, bias=False)
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
        """Apply pair blocks and Transformer blocks in turn: each updates its representation and reads the other."""
        assert (cache, last) == (None, None), "attention is bidirectional: no cache"
        tokens, seq_mask = self.tokens(batch), batch["seq_mask"]
        x, blocks = self.transformer.prepare(tokens.x, positions=tokens.positions, mask=tokens.mask & mask, probe=probe)
        z, baseline = self.pair_representation(batch, tokens.x)  # (B, L, L, P), (B, L, L)
        pair_mask = (seq_mask[:, :, None] & seq_mask[:, None, :])[..., None].to(z.dtype)  # (B, L, L, 1)
        for pair_block, (block, inputs) in zip(self.blocks, blocks, strict=True):
            z, bias = pair_block(z, x, pair_mask)  # (B, L, L, P), (B, H, L, L)
            x = block(x, **inputs | {"bias": add_biases(inputs["bias"], bias)})  # (B, L, C)
        x = self.transformer.norm(x)
        z = z + self.outer_product_out(x)
        logits = in_row_chunks(lambda z: self.distogram(self.norm(z)), z + z.transpose(1, 2))  # distances are symmetric
        if self.baseline is not None and baseline is not None:
            logits = logits + self.baseline.logits((baseline + baseline.mT) / 2)
        return Prediction(logits, None if self.ss8_head is None else self.ss8_head(x))

    def tokens(self, batch: Batch) -> Tokens:
        """Return the tokens: a convolution over the sequence and the profile around each residue."""
        residue_index, seq_mask = batch["residue_index"], batch["seq_mask"]  # (B, L)
        own = F.one_hot(batch["sequence"], self.num_amino_acids + 1)[..., :-1]  # (B, N, F); zeros for unknown residues
        known = [batch["site_features"]] if Channel.sites in self.channels else []
        chain = torch.cat([own.to(batch["profile"].dtype), batch["profile"], *known], -1)  # (B, N, 2F), or 3 more
        x = self.embed_norm(self.embed(chain.mT).mT)  # (B, N, C)
        x = x.gather(1, residue_index[..., None].expand(-1, -1, x.shape[-1]))  # (B, L, C)
        return Tokens(x, Padding(seq_mask), positions=residue_index[..., None])

    def pair_representation(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the initial pair representation (B, L, L, P) of tokens x (B, L, C), and the baseline (B, L, L) if
        any."""
        residue_index, max_relative_position = batch["residue_index"], self.config.max_relative_position
        separation = (residue_index[:, None] - residue_index[:, :, None]).clamp(
            -max_relative_position, max_relative_position
        )  # j - i
        z = self.relative_position(separation + max_relative_position) + self.outer_product_in(x)  # (B, L, L, P)
        if self.pair_feature_embed is not None:
            z = z + self.pair_feature_embed(batch["pair_features"])
        if self.baseline is None:
            return z, None
        p = batch["profile"].gather(1, residue_index[..., None].expand(-1, -1, self.num_amino_acids))  # (B, L, F)
        baseline = self.baseline(p, residue_index)
        return z + self.baseline_embed(baseline[..., None]), baseline

    def loss(self, predictions: Prediction, batch: Batch) -> Loss:
        """Return the negative log-likelihood of distances, plus that of secondary structure with its own weight."""
        weight = self.weight(batch)
        distance = Loss.of((self.nll(predictions, batch) * weight).sum(), weight.sum())
        if predictions.ss8 is None or "ss8" not in batch:
            return distance
        known = (batch["ss8"] >= 0).sum()
        wrong = F.cross_entropy(predictions.ss8.mT.float(), batch["ss8"], ignore_index=-1, reduction="sum")
        return Loss.joined([distance, Loss.of(SS8_WEIGHT * wrong, known)])

    def metrics(self, predictions: Prediction, batch: Batch) -> dict[str, Tensor]:
        """Return for each chain the long-range precision at L/5 and the loss."""
        weight, nll = self.weight(batch), self.nll(predictions, batch)
        contact, distance = (x.float().cpu().numpy() for x in (self.contacts(predictions), batch["distance"]))
        lengths = enumerate(batch["seq_mask"].sum(1).tolist())
        return {
            "long_range_precision": torch.tensor(
                [precision(contact[b, :n, :n], distance[b, :n, :n], 5) for b, n in lengths]
            ),
            "loss": (nll * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1),
        }

    def contacts(self, predictions: Prediction) -> Tensor:
        """Return P(contact), (B, L, L): the sum of all bins below 8 Å, and the share of the bin that contains 8 Å."""
        distance = predictions.distance
        with torch.autocast(distance.device.type, enabled=False):  # autocast would multiply in bfloat16
            return distance.float().softmax(-1) @ self.contact_fraction.float()

    def nll(self, predictions: Prediction, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of the true bin, (B, L, L), in nats."""
        bins = torch.bucketize(batch["distance"], self.bin_edges, right=True)  # (B, L, L)
        return F.cross_entropy(predictions.distance.float().permute(0, 3, 1, 2), bins, reduction="none")

    def weight(self, batch: Batch) -> Tensor:
        """Return the weight of each pair in the loss, (B, L, L); each pair occurs twice."""
        residue_index, seq_mask = batch["residue_index"], batch["seq_mask"]
        separation = (residue_index[:, None] - residue_index[:, :, None]).abs()
        real = seq_mask[:, :, None] & seq_mask[:, None] & (separation > 0) & batch["distance"].isfinite()
        return real * torch.where(separation < NEAR, NEAR_WEIGHT, 1.0)
