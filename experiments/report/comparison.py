"""The results of `attend compare` as one self-contained HTML page.

Shapes: S seeds
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy.stats import t

from experiments.effects import CONFIDENCE, COSTS, SIZE_TOLERANCE
from experiments.report.page import format_number, write_page

CURVE_POINTS = 100  # at most
ENVIRONMENT_KEYS = ("machine", "device", "python", "commit")  # of a run's summary.json, beside its versions


def write_comparison(path: Path, results: dict[str, Any]) -> None:
    """Write the results as a page, with the curves and configurations of their runs."""
    write_page(
        path,
        "comparison",
        "comparison",
        data=chart_data(results),
        results=nan_to_none(results),
        differing_settings={domain: differing_settings(results, domain) for domain in results["domains"]},
        run_environments=run_environments(results["rows"]),
        size_tolerance=SIZE_TOLERANCE,
    )


def nan_to_none(value: Any) -> Any:
    """Replace nan and ±inf, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {name: nan_to_none(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def chart_data(results: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the charts: for each domain its runs, the mean of each value, and the effects."""
    domains = []
    for domain in results["domains"]:
        effects = [line for line in results["effects"] if line["domain"] == domain and line["seeds"]]
        rows = [row for row in results["rows"] if row["domain"] == domain and row.get("score") is not None]
        columns = ("value", "seed", "score", *COSTS)
        chart = {
            "domain": domain,
            "metric": effects[0]["metric"] if effects else None,
            "better": "lower" if effects and effects[0]["lower_is_better"] else "higher",
            "runs": [{name: row[name] for name in columns} | {"curve": loss_curve(Path(row["run"]))} for row in rows],
            "means": [mean_with_interval(line) for line in effects],
            "effects": [paired_effect(line, rows, results["values"][0]) for line in effects if "change" in line],
        }
        domains.append(chart | {"descriptions": describe_charts(chart, results["values"][0])})
    return nan_to_none({"factor": results["factor"], "values": results["values"], "domains": domains})


def mean_with_interval(line: dict[str, Any]) -> dict[str, Any]:
    """Return a value's mean score with Student's interval, and its mean costs."""
    half_width = student_half_width(line["deviation"], line["seeds"])
    columns = {name: line[name] for name in ("value", "mean", *COSTS)}
    return columns | {"low": line["mean"] - half_width, "high": line["mean"] + half_width}


def paired_effect(line: dict[str, Any], rows: list[dict[str, Any]], first: str) -> dict[str, Any]:
    """Return an effect with the difference of each seed, and the scales that convert it to other units.

    `size` is the first value's mean and `spread` its deviation, over the seeds that both have; None where 0 or unknown.
    """
    base, other = ({r["seed"]: r["score"] for r in rows if r["value"] == value} for value in (first, line["value"]))
    seeds = sorted(base.keys() & other.keys())
    sign = -1 if line["lower_is_better"] else 1
    scores = np.array([base[seed] for seed in seeds])  # (S,)
    differences_ = sign * (np.array([other[seed] for seed in seeds]) - scores)  # (S,)
    half_width = (
        student_half_width(float(differences_.std(ddof=1)), len(differences_)) if len(differences_) > 1 else math.nan
    )
    columns = {name: line[name] for name in ("value", "change", "low", "high", "sure", "other_size")}
    return columns | {
        "differences": [{"seed": seed, "d": float(x)} for seed, x in zip(seeds, differences_, strict=True)],
        "student": [line["change"] - half_width, line["change"] + half_width],
        "size": abs(float(scores.mean())) or None,
        "spread": (float(scores.std(ddof=1)) or None) if len(differences_) > 1 else None,
    }


def student_half_width(deviation: float, seeds: int) -> float:
    """Return half the width of Student's interval of a mean, at CONFIDENCE; nan for a single seed."""
    return float(t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * deviation / seeds**0.5) if seeds > 1 else math.nan


def loss_curve(folder: Path) -> list[list[float]]:
    """Read (step, training loss) from metrics.csv; a long run is averaged to CURVE_POINTS points."""
    if not (folder / "metrics.csv").is_file():
        return []
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [(float(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file) if row.get("train/loss")]
    stretches = np.array_split(np.array(rows), min(CURVE_POINTS, len(rows))) if rows else []
    return [[round(float(step)), float(f"{loss:.4g}")] for step, loss in (part.mean(axis=0) for part in stretches)]


def describe_charts(chart: dict[str, Any], first: str) -> dict[str, str]:
    """Describe the charts of a domain in text."""
    scores = "; ".join(
        f"{mean['value']} {format_number(mean['mean'])} ("
        f"{', '.join(format_number(run['score']) for run in chart['runs'] if run['value'] == mean['value'])})"
        for mean in chart["means"]
    )
    effects = "; ".join(
        f"{effect['value']} {format_number(effect['change'], '+.3g')} ({format_number(effect['low'], '+.3g')} to "
        f"{format_number(effect['high'], '+.3g')}){'' if effect['sure'] else ', not sure'}"
        for effect in chart["effects"]
    )
    curves = "; ".join(
        f"{run['value']} seed {run['seed']} from {run['curve'][0][1]:g} to {run['curve'][-1][1]:g}"
        for run in chart["runs"]
        if run["curve"]
    )
    return {
        "scores": f"{chart['metric']}, {chart['better']} is better, mean and each seed: {scores}",
        "effects": f"change of {chart['metric']} beside {first}, positive is better: {effects}",
        "costs": f"each run's {chart['metric']} against its cost; the table of every run has the figures",
        "curves": f"training loss, first and last point: {curves}",
    }


def differing_settings(results: dict[str, Any], domain: str) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between the values of the factor: name, and each value's setting."""
    configs = []
    for value in results["values"]:
        runs = (r["run"] for r in results["rows"] if (r["domain"], r["value"]) == (domain, value))
        paths = (Path(run) / "config.yaml" for run in runs)
        path = next((path for path in paths if path.is_file()), None)
        configs.append(flatten(OmegaConf.to_container(OmegaConf.load(path))) if path else None)
    known = [config for config in configs if config is not None]
    names = dict.fromkeys(name for config in known for name in config if name not in ("seed", "run"))
    return [
        (name, ["–" if config is None else config.get(name, "–") for config in configs])
        for name in names
        if len({config.get(name) for config in known}) > 1
    ]


def flatten(tree: Any, prefix: str = "") -> dict[str, str]:
    """Flatten a configuration to full names and values, as they would be typed."""
    if not isinstance(tree, dict):
        return {prefix: tree if isinstance(tree, str) else json.dumps(tree)}
    return {
        full: leaf
        for name, part in tree.items()
        for full, leaf in flatten(part, f"{prefix}.{name}" if prefix else name).items()
    }


def run_environments(rows: list[dict[str, Any]]) -> list[tuple[int, dict[str, str]]]:
    """Return the environments of the runs (machine, device, versions, commit), with the number of runs in each."""
    chart: dict[str, tuple[int, dict[str, str]]] = {}
    for row in rows:
        path = Path(row["run"]) / "summary.json"
        if path.is_file():
            summary = json.loads(path.read_text(encoding="utf-8"))
            environment_ = {name: str(summary.get(name, "unknown")) for name in ENVIRONMENT_KEYS} | summary["versions"]
            key = json.dumps(environment_)
            chart[key] = (chart[key][0] + 1 if key in chart else 1, environment_)
    return list(chart.values())
