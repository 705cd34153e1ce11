"""The results of `attend transfer` as one self-contained HTML page."""

from pathlib import Path
from typing import Any

from experiments.effects import format_effect
from experiments.report.comparison import chart_data, nan_to_none, run_environments
from experiments.report.page import write_page

MODES = {
    "tuned": "the core of another run, trained on",
    "frozen": "the core of another run, frozen",
    "random": "a new core, frozen as it was drawn",
}


def write_transfer(path: Path, results: dict[str, Any]) -> None:
    """Write the results as a page, with the environments of their runs."""
    domains = dict.fromkeys([*results["finetune"], *results["pretrain"]])  # some only train a core
    same = results | {"domains": [*domains], "factor": "core"}  # drawn as a comparison of cores
    write_page(
        path,
        "transfer",
        "transfer",
        data=heatmap_data(results),
        results=nan_to_none(results),
        domains=chart_data(same)["domains"],
        run_environments=run_environments(results["rows"]),
    )


def heatmap_data(results: dict[str, Any]) -> dict[str, Any]:
    """Return a matrix for each mode: source by target domain, with a description of each cell."""
    lines = [line for line in results["effects"] if line["value"] != "scratch"]
    cells = {mode: [heatmap_cell(line) for line in lines if line["mode"].value == mode] for mode in MODES}
    matrices = [{"mode": mode, "about": about, "cells": cells[mode]} for mode, about in MODES.items() if cells[mode]]
    return nan_to_none({"domains": results["finetune"], "matrices": matrices})


def heatmap_cell(line: dict[str, Any]) -> dict[str, Any]:
    """Return what is drawn for an effect against scratch."""
    cell = {"core": line["pretrain"] or "new", "domain": line["domain"], "percent": None, "sure": False}
    if "change" not in line:
        return cell | {"effect": "scratch\nfailed" if line["seeds"] else "failed", "interval": ""}
    effect, interval = format_effect(line)
    return cell | {
        "percent": line["percent"],
        "sure": line["sure"],
        "effect": effect.replace(" from", "\nfrom"),
        "interval": interval,
    }
