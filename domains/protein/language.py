"""A masked protein language model on the shared core, with ESM-2's architecture: its weights can be imported and
exported (convert.py).

    tokens = encode(["MKTAYIAK", "GS<mask>LV"])    # (B, L): <cls>, residues, <eos>, padding
    model({"tokens": tokens})                      # (B, L, K)
    model.contacts(tokens)                         # (B, L - 2, L - 2)

Shapes: B batch · L tokens of the longest chain, <cls> and <eos> among them · C width · H heads · D head width ·
K = 33 kinds of token
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import Mixer, PositionConfig, PositionKind, TransformerConfig
from core.layers import Transformer, make_norm
from core.masks import Padding
from core.positions import Rotary, make_position
from core.probe import Probe
from domains.adapter import Batch, DomainAdapter, Loss, Tokens

ESM_RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO.-"  # the 20 amino acids first, by frequency
ALPHABET = ("<cls>", "<pad>", "<eos>", "<unk>", *ESM_RESIDUES, "<null_1>", "<mask>")  # ESM-2's
TOKEN_IDS = {token: number for number, token in enumerate(ALPHABET)}
CLS, PAD, EOS, MASK = (TOKEN_IDS[token] for token in ("<cls>", "<pad>", "<eos>", "<mask>"))
FIRST_AMINO_ACID, LAST_AMINO_ACID = TOKEN_IDS["L"], TOKEN_IDS["C"]  # first and last of the 20 amino acids
IGNORE_INDEX = -100  # the target of other tokens (PyTorch's ignore_index)
MASK_PROBABILITY, MASK_TOKEN_PROBABILITY = (
    0.15,
    0.8,
)  # share of residues that are targets, and of these the share replaced by <mask>
MAX_TOKENS = 1024  # ESM-2's maximum length in training, and the number of learned positions


def encode(sequences: list[str]) -> Tensor:
    """Encode sequences of one-letter codes and <mask> as tokens (B, L), int64.

    Raises:
        ValueError: for no sequence, an empty one, or a letter outside of the alphabet.
    """
    if not sequences or not all(sequences):
        raise ValueError("encode needs at least one sequence, and at least one residue in each")
    rows = [re.findall("<mask>|.", sequence, re.DOTALL) for sequence in sequences]
    for number, row in enumerate(rows):
        if unknown := sorted(set(row) - {*ESM_RESIDUES, "<mask>"}):
            raise ValueError(
                f"sequence {number} has {', '.join(map(repr, unknown))}; possible: {ESM_RESIDUES} (upper case) and "
                "<mask>; write X for a residue that is not known"
            )
    tokens = torch.full((len(rows), max(map(len, rows)) + 2), PAD)
    for into, row in zip(tokens, rows, strict=True):
        into[: len(row) + 2] = torch.tensor([CLS, *(TOKEN_IDS[letter] for letter in row), EOS])
    return tokens


def mask_tokens(tokens: Tensor, draw: torch.Generator | None = None, hidden: float = MASK_TOKEN_PROBABILITY) -> Batch:
    """Return inputs and targets of masked language modelling: 15 % of the residues become targets.

    Of these 80 % are replaced by <mask>, 10 % by a random amino acid, and 10 % stay.

    Source: BERT (Devlin et al. 2019, section 3.1), as ESM-2 (Lin et al. 2023) takes it.

    Args:
        tokens: (B, L), as `encode` writes them.
        hidden: the share replaced by <mask>; half of the rest becomes a random amino acid, half stays.

    Returns:
        {"tokens", "targets"}, both (B, L); a target is IGNORE_INDEX elsewhere.
    """
    residue = (tokens >= FIRST_AMINO_ACID) & (tokens < FIRST_AMINO_ACID + len(ESM_RESIDUES))
    selected = residue & (torch.rand(tokens.shape, generator=draw) < MASK_PROBABILITY)
    fate = torch.rand(tokens.shape, generator=draw)
    other = torch.randint(FIRST_AMINO_ACID, LAST_AMINO_ACID + 1, tokens.shape, generator=draw)
    changed = torch.where(fate < hidden, MASK, torch.where(fate < (1 + hidden) / 2, other, tokens))
    return {"tokens": torch.where(selected, changed, tokens), "targets": torch.where(selected, tokens, IGNORE_INDEX)}


class LanguageModel(DomainAdapter):
    """A masked language model of proteins; its attention maps predict contacts.

    Masked residues have zero embeddings; `tokens` rescales the others (ESM-2's token dropout):

        x = embedding · (1 - 0.15 · 0.8) / (1 - share of <mask> in the chain),  0 at <mask> and at padding

    Source: ESM-2 (Lin et al. 2023); contacts: Rao et al. 2021, "Transformer protein language models are unsupervised
    structure learners".

    Args:
        config: sizes and choices.
        position: the position embedding; ESM-2's is rotary.
    """

    metric_names = ("recovery", "loss")

    def __init__(self, config: TransformerConfig, position: PositionConfig):
        super().__init__()
        C, self.config = config.dim, config
        self.embed = nn.Embedding(len(ALPHABET), C)
        nn.init.normal_(self.embed.weight, std=C**-0.5)  # tied with the decoder: logits start at variance 1
        rotary = position.kind is PositionKind.rotary and not position.table
        self.transformer = Transformer(
            config,
            Rotary(C // config.num_heads, base=position.base, save_frequencies=True)
            if rotary
            else make_position(position, config, (MAX_TOKENS,)),
        )
        self.dense, self.norm = nn.Linear(C, C), make_norm(config)
        self.bias = nn.Parameter(torch.zeros(len(ALPHABET)))
        self.contact = nn.Linear(config.depth * config.num_heads, 1)
        self.contact.requires_grad_(False)  # imported with ESM-2's weights, never trained here

    def tokens(self, batch: Batch) -> Tokens:
        tokens = batch["tokens"]  # (B, L)
        real, masked = tokens != PAD, tokens == MASK
        seen = 1 - masked.sum(1) / real.sum(1)  # (B,)
        x = self.embed(tokens).masked_fill((masked | ~real)[..., None], 0.0)  # (B, L, C)
        return Tokens(
            x * ((1 - MASK_PROBABILITY * MASK_TOKEN_PROBABILITY) / seen).to(x.dtype)[:, None, None], Padding(real)
        )

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return the logits of all tokens, (B, L, K)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), self.embed.weight, self.bias)

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        logits, targets = predictions.flatten(0, 1).float(), batch["targets"].flatten()
        total = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
        return Loss.of(total, (targets != IGNORE_INDEX).sum())

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return for each target whether it is the most likely residue, and its negative log-likelihood in nats.

        The perplexity of a split is the exponential of its mean loss.
        """
        selected = batch["targets"] != IGNORE_INDEX
        logits, targets = predictions[selected].float(), batch["targets"][selected]  # (asked, K), (asked,)
        return {
            "recovery": (logits.argmax(-1) == targets).float(),
            "loss": F.cross_entropy(logits, targets, reduction="none"),
        }

    @torch.no_grad()
    def contacts(self, tokens: Tensor) -> Tensor:
        """Return P(contact) of each pair: a logistic regression on the attention maps of all blocks and heads.

            a = A + Aᵀ;  logit_ij = bias + Σ weight · (a_ij - a_i· a_·j / a_··)      sums over residues alone

        The maps of a block are reduced at once: memory is that of one block, O(H L²).

        Source: Rao et al. 2021; average product correction: Dunn et al. 2008.

        Args:
            tokens: (B, L), as `encode` writes them.
        Returns:
            (B, L - 2, L - 2), without <cls> and <eos>; 0 beyond the end of a shorter chain.
        Raises:
            ValueError: for rows that are not <cls>, residues, <eos>, or a mixer without attention maps.
        """
        if self.config.mixer is not Mixer.softmax:
            raise ValueError(f"contacts are read from the maps of mixer=softmax; {self.config.mixer.value} has none")
        if not ((tokens[:, 0] == CLS) & (tokens == EOS).any(1)).all():
            raise ValueError("contacts needs rows of <cls>, residues, <eos> and padding; encode() writes them")
        residue = (tokens != CLS) & (tokens != EOS) & (tokens != PAD)  # (B, L)
        pair_mask = residue[:, None, :] & residue[:, :, None]  # (B, L, L)
        weight = self.contact.weight.float().view(-1, self.config.num_heads)  # (depth, H)
        logits = torch.zeros_like(pair_mask, dtype=torch.float32)

        def weigh(name: str, maps: Tensor) -> Tensor:
            block = int(name.partition(".")[0])
            a = maps.float() * pair_mask[:, None]  # (B, H, L, L)
            a = a + a.mT
            one = a.sum(-1, keepdim=True)  # (B, H, L, 1)
            whole = one.sum(-2, keepdim=True).clamp(min=torch.finfo(a.dtype).tiny)  # 0 if no residue attends to another
            with torch.autocast(a.device.type, enabled=False):  # autocast would sum in bfloat16
                return logits.add_(torch.einsum("bhij,h->bij", a - one * one.mT / whole, weight[block]))

        self.transformer(**self.tokens({"tokens": tokens})._asdict(), probe=Probe("*.attention", reduce=weigh))
        return ((logits + self.contact.bias.float()).sigmoid() * pair_mask)[:, 1:-1, 1:-1]
