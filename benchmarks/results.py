"""Gather trained and evaluated runs of one recipe, one a seed, into docs/results/NAME.json; other seeds in it stay.

python benchmarks/results.py NAME RUN [RUN …]
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.runs import write_json

KEPT = ("seed", "steps", "seconds", "parameters", "precision")
KEPT += ("date", "command", "commit", "machine", "device", "python", "versions")


def main(name: str, *runs: str) -> None:
    """Print mean and deviation of each metric."""
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for run in map(Path, runs):
        summary = json.loads((run / "summary.json").read_text())
        found = json.loads((run / "evaluate" / "summary.json").read_text())
        metrics = numbers(found["metrics"])
        metrics |= {f"baseline/{score['baseline']}": score["baseline_value"] for score in found["scores"]}
        rows.append(
            {key: summary[key] for key in KEPT if key in summary} | {"split": found["split"], "metrics": metrics}
        )
    file = Path(__file__).parents[1] / "docs" / "results" / f"{name}.json"
    earlier_rows = json.loads(file.read_text())["runs"] if file.exists() else []
    new_seeds = {row["seed"] for row in rows}
    rows = sorted([*rows, *(row for row in earlier_rows if row["seed"] not in new_seeds)], key=lambda row: row["seed"])
    together = {}
    for key in [key for key in rows[0]["metrics"] if all(key in row["metrics"] for row in rows)]:
        values = [row["metrics"][key] for row in rows]
        together[key] = {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}
    write_json(file, {"domain": summary["domain"], "together": together, "runs": rows})
    for key, value in together.items():
        print(key, value)


def numbers(metrics: dict[str, Any], path: str = "") -> dict[str, float]:
    """Yield every number among the metrics, nested ones by their path: achieved/500/mean."""
    found = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float):
            found[f"{path}{key}"] = value
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
