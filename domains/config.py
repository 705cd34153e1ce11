"""The configuration that all domains share, and the folder of downloads."""

import os
from dataclasses import dataclass
from pathlib import Path


def data_home() -> Path:
    """Return the folder of downloads and of what is made of them: $ATTEND_DATA, or ~/.cache/attend."""
    return Path(os.environ.get("ATTEND_DATA", Path.home() / ".cache" / "attend"))


@dataclass
class DomainConfig:
    """The domain, and its Python package (`domains/__init__.py` lists its modules)."""

    name: str = "???"
    package: str = "???"
