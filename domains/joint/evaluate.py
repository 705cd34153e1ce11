"""Every domain by its own metrics."""

from pathlib import Path

from domains.adapter import Evaluation
from domains.domain import find_domain
from domains.joint.adapter import Adapter
from domains.joint.data import Data


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """The evaluation of each domain, in a folder of its own; their scores one below the other.

    Raises:
        ValueError: as the domains do.
    """
    adapter.eval()
    found = {
        name: find_domain(f"domains.{name}").evaluate(part, data.parts[name], folder / name, split)
        for name, part in adapter.adapters()
    }
    return Evaluation(
        [score._replace(metric=f"{name}: {score.metric}") for name, each in found.items() for score in each.scores],
        {name: each.metrics for name, each in found.items()},
        [figure for each in found.values() for figure in each.figures],
    )
