"""metrics.csv over the stops and resumptions of a run: Lightning's CSV logger begins a new file each time."""

import csv
from pathlib import Path

from experiments.guards import atomic_write


def set_aside(folder: Path) -> None:
    """Before a run goes on: keep what metrics.csv holds so far."""
    join(folder)
    if (folder / "metrics.csv").is_file():
        (folder / "metrics.csv").replace(folder / "metrics.before.csv")


def join(folder: Path) -> None:
    """Put the earlier part before the later one; where both have a step, the later one counts."""
    before, after = folder / "metrics.before.csv", folder / "metrics.csv"
    if not before.is_file():
        return
    old, new = _rows(before), _rows(after) if after.is_file() else []
    first = min((int(row["step"]) for row in new), default=None)
    rows = [row for row in old if first is None or int(row["step"]) < first] + new
    columns = sorted({name for row in rows for name in row}, key=lambda name: (name not in ("epoch", "step"), name))
    with atomic_write(after) as new, open(new, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    before.unlink()


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))  # a kill may cut the last one short
