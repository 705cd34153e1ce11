"""Pieces of a series as tokens, and their mean as the series.

Shapes: B batch · T steps · S sensors · L tokens · P steps of a token · C width · K classes
"""

import torch
import torch.nn.functional as F

from core.layers import Transformer
from core.positions import make_position
from domains.adapter import DomainAdapter, Loss, Tokens


class Adapter(DomainAdapter):
    metric_names = ("accuracy", "loss")

    def __init__(self, config, position, spec):
        super().__init__()
        if spec["length"] % config.piece:
            raise ValueError(f"{spec['length']} steps are no multiple of model.piece={config.piece}; set a divisor")
        self.piece, self.classes, self.length = config.piece, spec["classes"], spec["length"]
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]))
        self.register_buffer("std", torch.tensor(spec["std"]))
        self.embed = torch.nn.Linear(self.piece * len(spec["mean"]), config.dim)
        self.transformer = Transformer(config, make_position(position, config, (self.length // self.piece,)))
        self.classifier = torch.nn.Linear(config.dim, len(self.classes))

    def tokens(self, batch):
        x = (batch["series"] - self.mean) / self.std  # (B, T, S)
        return Tokens(self.embed(x.unflatten(1, (-1, self.piece)).flatten(2)))  # (B, L, P·S) to (B, L, C)

    def head(self, hidden, tokens):
        return self.classifier(hidden.mean(1))  # (B, K)

    def loss(self, predictions, batch):
        return Loss.of(F.cross_entropy(predictions, batch["labels"], reduction="sum"), len(predictions))

    def metrics(self, predictions, batch):
        right = predictions.argmax(-1) == batch["labels"]
        return {"accuracy": right.float(), "loss": F.cross_entropy(predictions, batch["labels"], reduction="none")}
