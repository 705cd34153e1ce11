"""metrics.csv of a resumed run: Lightning's CSV logger starts a new file each time."""

import csv
from pathlib import Path

from experiments.guards import atomic_write


def stash_metrics(folder: Path) -> None:
    """Move metrics.csv aside before a run is resumed."""
    merge_metrics(folder)
    if (folder / "metrics.csv").is_file():
        (folder / "metrics.csv").replace(folder / "metrics.before.csv")


def merge_metrics(folder: Path) -> None:
    """Put the stashed rows before the new ones; where both have a step, keep the new one."""
    earlier, after = folder / "metrics.before.csv", folder / "metrics.csv"
    if not earlier.is_file():
        return
    earlier_rows, new = _read_rows(earlier), _read_rows(after) if after.is_file() else []
    first = min((int(row["step"]) for row in new), default=None)
    rows = [row for row in earlier_rows if first is None or int(row["step"]) < first] + new
    columns = sorted({name for row in rows for name in row}, key=lambda name: (name not in ("epoch", "step"), name))
    with atomic_write(after) as new, open(new, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    earlier.unlink()


def _read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))  # a kill may cut the last one short
