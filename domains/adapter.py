"""The seam between a domain and the core.

Shapes: B batch · L tokens · A axes of position · C token width · H heads
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar  # of Python 3.13: it knows a default

from core.cache import BlockCache, Cache
from core.layers import Transformer
from core.masks import Mask, NoMask
from core.probe import Probe

Batch = dict[str, Tensor]
Predictions = TypeVar("Predictions", default=Tensor)


class Tokens(NamedTuple):
    """The arguments of the core's Transformer that a domain makes of a batch."""

    x: Tensor  # (B, L, C)
    mask: Mask = NoMask()
    positions: Tensor | None = None  # (L, A) or (B, L, A); 0, 1, 2 … if None


class Loss(NamedTuple):
    """The loss of a batch as T terms, each a sum and the number of examples in it; training lowers Σ_t sum_t / count_t.

    Sums and counts of several processes add up to those of the whole batch, where means would not.
    """

    sum: Tensor  # (T,); the weight of a term is inside of it
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (T,)

    @classmethod
    def of(cls, sum: Tensor, count: Tensor | int) -> Self:
        """A loss of one term."""
        return cls(sum[None], torch.full_like(sum, count)[None] if isinstance(count, int) else count[None])

    @classmethod
    def joined(cls, losses: Iterable["Loss"]) -> Self:
        """The terms of several losses."""
        sums, counts = zip(*losses, strict=True)
        return cls(torch.cat(sums), torch.cat(counts))


def mean_loss(loss: Loss) -> Tensor:
    """The scalar Σ_t sum_t / count_t; a term without examples is its sum."""
    return (loss.sum / loss.count.clamp(min=1)).sum()


class DomainAdapter(nn.Module, ABC, Generic[Predictions]):
    """The model of a domain: batch -> Tokens -> Transformer -> predictions, a tensor or a tuple; loss and metrics.

    Attributes:
        transformer: the core's Transformer; a subclass builds it.
        metric_names: the names that `metrics` returns.
    """

    transformer: Transformer
    metric_names: tuple[str, ...]

    @abstractmethod
    def tokens(self, batch: Batch) -> Tokens:
        """Return the tokens of a batch."""

    def head(self, hidden: Tensor, tokens: Tokens) -> Predictions:
        """Hidden states (B, L, C) to predictions. An adapter with a `forward` of its own needs none."""
        raise NotImplementedError

    @abstractmethod
    def loss(self, predictions: Predictions, batch: Batch) -> Loss:
        """Return the sum of each term of the loss over the examples that count, and their number.

        Nothing in it waits for a GPU: no `.item()`, no boolean indexing.
        """

    @abstractmethod
    def metrics(self, predictions: Predictions, batch: Batch) -> dict[str, Tensor]:
        """For each of `metric_names` a 1-D tensor, one value for each example that counts (image, chain, step, byte).

        Their mean over a whole split is the split's score, exact for any batch size and number of processes.
        """

    def forward(
        self,
        batch: Batch,
        *,
        mask: Mask = NoMask(),
        cache: Cache[BlockCache] | None = None,
        probe: Probe | None = None,
        last: int | None = None,
    ) -> Predictions:
        """Predictions for a batch.

        Args:
            mask: hides more than the domain's own mask.
            cache, probe: as of the Transformer.
            last: predict at the last n tokens alone.
        """
        tokens = self.tokens(batch)
        tokens = tokens._replace(mask=tokens.mask & mask)
        hidden = self.transformer(**tokens._asdict(), cache=cache, probe=probe, last=last)
        return self.head(hidden, tokens)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class Score(NamedTuple):
    """One line of a results table: a measured value beside what it has to beat, from the same run."""

    metric: str
    value: float
    baseline: str
    baseline_value: float
    lower_is_better: bool = False


@dataclass
class Evaluation:
    """The result of an evaluation.

    Attributes:
        scores: the domain's headline figures beside their baselines.
        metrics: every figure, by name.
        figures: pictures, most telling first.
        compared: the one by which runs are compared; the first of `scores` if None.
    """

    scores: list[Score]
    metrics: dict[str, Any]
    figures: list[Path] = field(default_factory=list)
    compared: Score | None = None


def to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.inference_mode()
def mean_metrics(adapter: DomainAdapter, batches: Iterable[Batch]) -> dict[str, float]:
    """The mean of every metric over all examples of `batches`."""
    adapter.eval()
    values: dict[str, list[Tensor]] = {name: [] for name in adapter.metric_names}
    for batch in batches:
        batch = to_device(batch, adapter.device)
        for name, value in adapter.metrics(adapter(batch), batch).items():
            values[name].append(value.double().cpu())
    return {name: torch.cat(parts).mean().item() for name, parts in values.items()}
