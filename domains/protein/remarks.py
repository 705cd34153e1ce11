"""What readers of files leave out, change or guess on the way: collected, and said in one line for each reason."""

from collections import Counter, defaultdict

from domains.data_warnings import warn_data

SHOWN = 5  # examples of a reason


class Remarks(defaultdict[str, list[str]]):
    """For each reason, what it befell: names of residues, of chains or of files."""

    def __init__(self):
        super().__init__(list)

    def say(self, where: object) -> None:
        """One line for each reason: `WHERE: residues of unknown name, read as X: 3 (2 ABC, 1 XYZ)`."""
        for reason, befallen in self.items():
            counts = Counter(befallen)
            shown = [f"{count} {name}" if count > 1 else name for name, count in counts.most_common(SHOWN)]
            more = ", …" if len(counts) > SHOWN else ""
            warn_data(f"{where}: {reason}: {len(befallen)} ({', '.join(shown)}{more})")

    def add(self, others: "Remarks") -> None:
        for reason, befallen in others.items():
            self[reason] += befallen
