"""What every domain's configuration says, and where data are kept."""

import os
from dataclasses import dataclass
from pathlib import Path


def data_home() -> Path:
    """Where downloads, and what is made of them, are kept: $ATTEND_DATA, or ~/.cache/attend."""
    return Path(os.environ.get("ATTEND_DATA", Path.home() / ".cache" / "attend"))


@dataclass
class DomainConfig:
    """Which domain, and the Python package that holds its rooms (`domains/__init__.py` lists them)."""

    name: str = "???"
    package: str = "???"
