"""What `attend transfer` found as one HTML page that needs nothing beside it."""

from pathlib import Path
from typing import Any

from experiments.comparison import told
from experiments.report.comparison import charts, finite, places
from experiments.report.offline import write

MODES = {
    "tuned": "the core of another run, trained on",
    "frozen": "the core of another run, frozen",
    "random": "a new core, frozen as it was drawn",
}


def write_transfer(path: Path, results: dict[str, Any]) -> None:
    """Write results.json's content as a page, with the places where the runs that it names were made."""
    domains = dict.fromkeys([*results["finetune"], *results["pretrain"]])  # of some there are only the cores' own runs
    same = results | {"domains": [*domains], "factor": "core"}  # a comparison of cores
    write(
        path,
        "transfer",
        "transfer",
        data=heat(results),
        results=finite(results),
        domains=charts(same)["domains"],
        places=places(results["rows"]),
    )


def heat(results: dict[str, Any]) -> dict[str, Any]:
    """A matrix for each mode: where cores come from by where they go, and in words what a cell says."""
    lines = [line for line in results["effects"] if line["value"] != "scratch"]
    cells = {mode: [cell(line) for line in lines if line["mode"].value == mode] for mode in MODES}
    matrices = [{"mode": mode, "about": about, "cells": cells[mode]} for mode, about in MODES.items() if cells[mode]]
    return finite({"domains": results["finetune"], "matrices": matrices})


def cell(line: dict[str, Any]) -> dict[str, Any]:
    """What is drawn of an effect beside scratch."""
    found = {"core": line["pretrain"] or "new", "domain": line["domain"], "percent": None, "sure": False}
    if "change" not in line:
        return found | {"effect": "scratch\nfailed" if line["seeds"] else "failed", "interval": ""}
    effect, interval = told(line)
    return found | {
        "percent": line["percent"],
        "sure": line["sure"],
        "effect": effect.replace(" from", "\nfrom"),
        "interval": interval,
    }
