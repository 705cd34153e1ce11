"""The output of a command: on a terminal, or in a log."""

import os

from rich.console import Console
from rich.status import Status


def make_console() -> Console:
    """Return a console that prints lines unchanged: paths may hold :colons: and [brackets]."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:  # a log has no width that a table must fit
        console.width = 160
    return console


def spinner(message: str) -> Status:
    """Show a message and a spinner on the terminal of rank 0 while a command works; write nothing to a log."""
    return Console(quiet=os.environ.get("LOCAL_RANK", "0") != "0").status(message)
