"""The data of several domains, side by side."""

from collections.abc import Sequence
from typing import Any

from domains.data import DomainData
from domains.domain import find_domain
from domains.sampling import Rngs


class Data(DomainData):
    """A batch is {domain: batch of that domain}, each made as for that domain alone, for the same step and seed.

    In training every step has one of each. In evaluation a domain that has come to its end is None from there on.

    Args:
        config: a DataConfig.
    Raises:
        ValueError: if no domain's loss has a weight, or one a negative one.
    """

    def __init__(self, config: Any, seed: int = 0):
        super().__init__(config, seed)
        if min(config.weights.values()) < 0 or not any(config.weights.values()):
            raise ValueError(f"data.weights={config.weights} must not be negative, and one of them above 0")
        self.weights = {name: weight for name, weight in config.weights.items() if weight}
        self.parts = {name: find_domain(f"domains.{name}").data(getattr(config, name), seed) for name in self.weights}

    def setup(self, stage: str | None = None) -> None:
        for part in self.parts.values():
            part.setup(stage)

    def spec(self):
        return {"weights": self.weights, "parts": {name: part.spec() for name, part in self.parts.items()}}

    def size(self, split):
        """As many as every domain has."""
        return min(part.size(split) for part in self.parts.values())

    def batch(self, split: str, indices: Sequence[int], rngs: Rngs | None = None) -> Any:
        draws = None if rngs is None else list(rngs)
        return {
            name: part.batch(split, indices, None if draws is None else iter(draws))
            for name, part in self.parts.items()
        }

    def train_dataloader(self, *given: int, **named: int) -> Any:
        """One for each domain."""
        loaders = {name: part.train_dataloader(*given, **named) for name, part in self.parts.items()}
        self.step_datasets = [dataset for part in self.parts.values() for dataset in part.step_datasets]
        return loaders

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> Any:
        """One for each domain."""
        return {name: part.eval_dataloader(split, rank, world) for name, part in self.parts.items()}
