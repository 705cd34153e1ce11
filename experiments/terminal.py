"""What a command says: on a terminal, or into a log."""

import os

from rich.console import Console
from rich.status import Status


def terminal() -> Console:
    """Prints lines as they are: paths in them are copied, and may have :colons: and [brackets]."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:  # a log has no edge that a table must fit
        console.width = 160
    return console


def waiting(what: str) -> Status:
    """A sign of life on a terminal while a command has nothing to show; nothing into a file, nor from other ranks."""
    return Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0").status(what)
