"""Precision of contacts from alignments as a function of steps and chains, with an extrapolation.

    python benchmarks/protein_curve.py CHAINS:RUN …

CHAINS is how many training chains had an alignment in that trained and evaluated run of experiment=contacts_alignment.
Writes docs/contacts_curve.json: a row for each run, and the line P = a + b log2(steps) through those of most
chains, with the steps at which it would reach 0.68 above 120 effective sequences.
"""

import json
import sys
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
from results import KEPT

from experiments.runs import write_json

FILE = Path(__file__).parents[1] / "docs" / "contacts_curve.json"
DEEP = "model P@L/5, Meff > 120"
KEYS = ("model P@L/5", "model P@L/5, Meff < 30", "model P@L/5, Meff 30-120", DEEP)
GOAL = 0.68


def main(*args: str) -> None:
    rows: list[dict[str, Any]] = []
    for argument in args:
        chains, run = argument.split(":", 1)
        summary, found = (json.loads((Path(run) / f).read_text()) for f in ("summary.json", "evaluate/summary.json"))
        kept = {key: summary[key] for key in KEPT if key in summary}
        rows.append({"chains": int(chains), **kept, **{key: found["metrics"][key] for key in KEYS}})
    most = [row for row in rows if row["chains"] == max(row["chains"] for row in rows)]
    slope, start = np.polyfit([log2(row["steps"]) for row in most], [row[DEEP] for row in most], 1)
    reached = round(2 ** ((GOAL - start) / slope))
    line = {"measure": DEEP, "each_doubling": slope, "goal": GOAL, "steps_at_goal": reached}
    write_json(FILE, {"rows": sorted(rows, key=lambda row: (row["chains"], row["steps"], row["seed"])), "line": line})
    print(json.dumps(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
