"""The attention explorer as one HTML page that needs nothing beside it."""

from pathlib import Path
from typing import Any

from experiments.report.offline import write


def write_explorer(path: Path, data: dict[str, Any]) -> None:
    """Write what experiments.explain found as a page."""
    write(path, "explorer", data=data)
