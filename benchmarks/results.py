"""Gather trained and evaluated runs of one recipe, one a seed, into docs/results/NAME.json.

python benchmarks/results.py NAME RUN [RUN …]
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.runs import write_json

KEPT = ("seed", "steps", "seconds", "parameters", "precision", "date", "machine", "device", "versions")


def main(name: str, *runs: str) -> None:
    """Prints mean and deviation of each measure."""
    rows: list[dict[str, Any]] = []
    for run in map(Path, runs):
        summary = json.loads((run / "summary.json").read_text())
        found = json.loads((run / "evaluate" / "summary.json").read_text())
        measures = {key: value for key, value in found["measures"].items() if isinstance(value, int | float)}
        rows.append({key: summary[key] for key in KEPT} | {"split": found["split"], "measures": measures})
    together = {}
    for key in rows[0]["measures"]:
        values = [row["measures"][key] for row in rows]
        together[key] = {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}
        print(key, together[key])
    write_json(Path(__file__).parents[1] / "docs" / "results" / f"{name}.json", {"together": together, "runs": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
