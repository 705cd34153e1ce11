"""Warnings of readers about what they leave out, change or guess: collected, then emitted in one line per reason."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from domains.data_warnings import warn_data

MAX_EXAMPLES = 5  # shown per reason


class ReadWarnings(defaultdict[str, list[str]]):
    """For each reason, the names of the residues, chains or files concerned."""

    def __init__(self):
        super().__init__(list)

    def emit(self, where: object) -> None:
        """Warn in one line for each reason: `WHERE: residues of unknown name, read as X: 3 (2 ABC, 1 XYZ)`."""
        for reason, examples in self.items():
            if not examples:
                continue
            counts = Counter(examples)
            shown = [f"{count} {name}" if count > 1 else name for name, count in counts.most_common(MAX_EXAMPLES)]
            more = ", …" if len(counts) > MAX_EXAMPLES else ""
            warn_data(f"{where}: {reason}: {len(examples)} ({', '.join(shown)}{more})")


@contextmanager
def collect_warnings(where: object, given: ReadWarnings | None) -> Iterator[ReadWarnings]:
    """Collect the warnings of a block. At its end, add them to `given`, or emit them if that is None."""
    own = ReadWarnings()
    yield own
    if given is None:
        own.emit(where)
        return
    for reason, examples in own.items():
        given[reason] += examples
