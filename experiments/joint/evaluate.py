"""Every domain by its own measures."""

from pathlib import Path

from domains.adapter import Evaluation
from experiments.joint.adapter import Adapter
from experiments.joint.data import Data
from experiments.runs import room


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """The evaluation of each domain, in a folder of its own; their scores one below the other.

    Raises:
        ValueError: as the domains do.
    """
    adapter.eval()
    found = {
        name: room(f"domains.{name}", "evaluate").evaluate(part, data.parts[name], folder / name, split)
        for name, part in adapter.adapters()
    }
    return Evaluation(
        [score._replace(metric=f"{name}: {score.metric}") for name, each in found.items() for score in each.scores],
        {name: each.measures for name, each in found.items()},
        [figure for each in found.values() for figure in each.figures],
    )
