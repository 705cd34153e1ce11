"""One core under the adapters of several domains."""

from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from core.config import PositionConfig, PositionKind, TransformerConfig, check_mixing
from core.layers import Transformer
from domains.adapter import Batch, DomainAdapter, Loss
from domains.data import REPEATED
from domains.domain import find_domain
from domains.joint.config import ModelConfig

Parts = dict[str, Batch | None]  # by domain
OWN = {"embed_norm"}  # of the tokens of a domain, before the core


class Adapter(DomainAdapter[dict[str, Any]]):
    """All blocks and the final norm are the same for every domain; the rest each domain has for itself.

        loss = Σ weight · loss of the domain        over the domains of a batch

    Args:
        config: the core, and the adapter and positions of each domain.
        position: none, for each domain has its own.
        spec: {"weights", "parts": {domain: its own spec}} of the data.
    Raises:
        ValueError: for a position that no domain would have, or a domain that asks for another core than the shared.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        if position.kind is not PositionKind.none:
            raise ValueError(
                f"position={position.kind.value} is of no domain here; set that of one: position@model.positions.text=…"
            )
        self.weights: dict[str, float] = spec["weights"]
        self.transformer = Transformer(config)
        self.parts = nn.ModuleDict()
        for name, known in spec["parts"].items():
            own, place = getattr(config, name), getattr(config.positions, name)
            check(name, own, place, config)
            part = find_domain(f"domains.{name}").adapter(own, place, known)
            share(self.transformer, part.transformer)
            self.parts[name] = part
        self.metric_names = tuple(f"{name}/{what}" for name, part in self.adapters() for what in part.metric_names)

    def adapters(self) -> list[tuple[str, Any]]:
        """(domain, its adapter), each of which works by itself."""
        return list(self.parts.items())

    def forward(self, batch: Any, **reading: Any) -> dict[str, Any]:
        """Return the predictions of each domain that has a batch."""
        return {name: part(batch[name], **reading) for name, part in self.adapters() if batch.get(name) is not None}

    def tokens(self, batch: Any) -> Any:
        return {name: part.tokens(batch[name]) for name, part in self.adapters() if batch.get(name) is not None}

    def head(self, hidden: Any, tokens: Any) -> dict[str, Any]:
        return {name: part.head(hidden[name], tokens[name]) for name, part in self.adapters() if name in tokens}

    def loss(self, predictions: dict[str, Any], batch: Any) -> Loss:
        """All terms of the domains' losses, the sums of each times its weight."""
        losses = [
            (name, part.loss(predictions[name], batch[name])) for name, part in self.adapters() if name in predictions
        ]
        return Loss.joined(Loss(self.weights[name] * loss.sum, loss.count) for name, loss in losses)

    def metrics(self, predictions: dict[str, Any], batch: Any) -> dict[str, Tensor]:
        return {
            f"{name}/{what}": values
            for name, part in self.adapters()
            if name in predictions and REPEATED not in batch[name]
            for what, values in part.metrics(predictions[name], batch[name]).items()
        }


def share(core: Transformer, trunk: Transformer) -> None:
    """Let a trunk run through the blocks and the norm of another one.

    They stay parameters of that one alone: a weight has one name in checkpoints and files.
    """
    for name in ("blocks", "norm"):
        delattr(trunk, name)
        object.__setattr__(trunk, name, getattr(core, name))


def check(name: str, own: Any, position: PositionConfig, core: ModelConfig) -> None:
    """Raises ValueError if a domain asks for another core than the shared one, or for what its mixer cannot do."""
    for field in fields(TransformerConfig):
        mine, shared = getattr(own, field.name), getattr(core, field.name)
        if mine != shared and field.name not in OWN:
            raise ValueError(
                f"model.{name}.{field.name}={mine} is of one core with model.{field.name}={shared}; set that alone"
            )
    if name == "text" and (own.lora_rank is not None or own.gpt2_init):
        raise ValueError("model.text.lora_rank and model.text.gpt2_init change a core that is not the text's alone")
    check_mixing(core.mixer, position.kind, own.needs)
