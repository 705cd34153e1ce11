"""Remarks of readers on what they leave out, change or guess: collected, then said in one line for each reason."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from domains.data_warnings import warn_data

SHOWN = 5  # examples of a reason


class Remarks(defaultdict[str, list[str]]):
    """For each reason, what it befell: names of residues, of chains or of files."""

    def __init__(self):
        super().__init__(list)

    def say(self, where: object) -> None:
        """One line for each reason: `WHERE: residues of unknown name, read as X: 3 (2 ABC, 1 XYZ)`."""
        for reason, befallen in self.items():
            if not befallen:
                continue
            counts = Counter(befallen)
            shown = [f"{count} {name}" if count > 1 else name for name, count in counts.most_common(SHOWN)]
            more = ", …" if len(counts) > SHOWN else ""
            warn_data(f"{where}: {reason}: {len(befallen)} ({', '.join(shown)}{more})")


@contextmanager
def remarking(where: object, given: Remarks | None) -> Iterator[Remarks]:
    """Remarks for a block. At its end they are added to those given, or said if there are none."""
    own = Remarks()
    yield own
    if given is None:
        own.say(where)
        return
    for reason, befallen in own.items():
        given[reason] += befallen
