"""A sign of life while a command works that has nothing to show yet."""

import os

from rich.console import Console
from rich.status import Status


def waiting(what: str) -> Status:
    """Says on a terminal what is being done, as long as it is; nothing into a file, nor from any rank but the first."""
    return Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0").status(what)
