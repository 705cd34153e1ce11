"""Warnings of readers: one line with a count and an example for all that is left out, changed or guessed.

Readers call `warn_data` and `warn_left_out`; a command records these lines (`record_data_warnings`) and repeats them in
its summary.json.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SHOWN = 16  # names in a message


class DataWarning(UserWarning):
    """Says what a reader left out, changed or guessed."""


def warn_data(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=3)


def warn_left_out(total: int, reasons: Mapping[str, Sequence[object]], where: object, what: str = "files") -> None:
    """Say how many of `total` were left out, and why: `3 of 40 files in DIR were left out: 2 .xyz (first: a.xyz) …`.

    Args:
        total: how many there were, read or not.
        reasons: for each reason, as it is shown behind a count, the names of what was left out; may be empty.
        where: the folder or file they are in.
        what: the plural of what is counted.
    """
    shown = [f"{len(names)} {reason} (first: {names[0]})" for reason, names in reasons.items() if names]
    if shown:
        count = sum(map(len, reasons.values()))
        were = "was" if count == 1 else "were"
        warn_data(f"{count} of {total} {what} in {where} {were} left out: {', '.join(shown)}")


@contextmanager
def record_data_warnings(show: bool = True) -> Iterator[list[str]]:
    """Record every DataWarning, each text once, in the list that is yielded; show each once, too.

    Args:
        show: False on all ranks but the first, which read the same data.
    """
    recorded: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        before = warnings.showwarning

        def record(message, category, *rest, **named) -> None:
            known = issubclass(category, DataWarning)
            if known and str(message) in recorded:
                return
            if known:
                recorded.append(str(message))
            if show or not known:
                before(message, category, *rest, **named)

        warnings.showwarning = record
        yield recorded


def listed(things: Iterable[Any]) -> str:
    """The first names of many, as a message shows them."""
    names = [str(thing) for thing in things]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
