"""What `attend compare` found as one HTML page that needs nothing beside it.

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

from experiments.comparison import ALIKE, COSTS, LEVEL
from experiments.report.offline import figure, write

POINTS = 100  # of a curve, at most
WHERE = ("machine", "device", "python", "commit")  # of a run's summary.json, beside its versions


def write_comparison(path: Path, results: dict[str, Any]) -> None:
    """Write results.json's content as a page, with the curves and configurations of the runs that it names."""
    write(
        path,
        "comparison",
        "comparison",
        data=charts(results),
        results=finite(results),
        differing={domain: differing(results, domain) for domain in results["domains"]},
        places=places(results["rows"]),
        alike=ALIKE,
    )


def finite(value: Any) -> Any:
    """The same with None for nan and ±inf, which JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def charts(results: dict[str, Any]) -> dict[str, Any]:
    """What the page draws: for each domain its runs, the mean of each value, and the effects."""
    domains = []
    for domain in results["domains"]:
        lines = [line for line in results["effects"] if line["domain"] == domain and line["seeds"]]
        rows = [row for row in results["rows"] if row["domain"] == domain and row.get("score") is not None]
        kept = ("value", "seed", "score", *COSTS)
        found = {
            "domain": domain,
            "metric": lines[0]["metric"] if lines else None,
            "better": "lower" if lines and lines[0]["lower_is_better"] else "higher",
            "runs": [{name: row[name] for name in kept} | {"curve": curve(Path(row["run"]))} for row in rows],
            "means": [average(line) for line in lines],
            "effects": [against(line, rows, results["values"][0]) for line in lines if "change" in line],
        }
        domains.append(found | {"said": said(found, results["values"][0])})
    return finite({"factor": results["factor"], "values": results["values"], "domains": domains})


def average(line: dict[str, Any]) -> dict[str, Any]:
    """A value's mean score with Student's interval, and its mean costs."""
    half = student(line["deviation"], line["seeds"])
    kept = {name: line[name] for name in ("value", "mean", *COSTS)}
    return kept | {"low": line["mean"] - half, "high": line["mean"] + half}


def against(line: dict[str, Any], rows: list[dict[str, Any]], first: str) -> dict[str, Any]:
    """An effect with the differences that it is the mean of, and the units that it can be told in.

    A percent is size / 100 and a deviation is spread, both of the first value over the seeds that both have; None
    where it is 0 or unknown.
    """
    base, other = ({r["seed"]: r["score"] for r in rows if r["value"] == value} for value in (first, line["value"]))
    seeds = sorted(base.keys() & other.keys())
    sign = -1 if line["lower_is_better"] else 1
    scores = np.array([base[seed] for seed in seeds])  # (S,)
    d = sign * (np.array([other[seed] for seed in seeds]) - scores)  # (S,)
    half = student(float(d.std(ddof=1)), len(d)) if len(d) > 1 else math.nan
    kept = {name: line[name] for name in ("value", "change", "low", "high", "sure", "other_size")}
    return kept | {
        "differences": [{"seed": seed, "d": float(x)} for seed, x in zip(seeds, d, strict=True)],
        "student": [line["change"] - half, line["change"] + half],
        "size": abs(float(scores.mean())) or None,
        "spread": (float(scores.std(ddof=1)) or None) if len(d) > 1 else None,
    }


def student(deviation: float, seeds: int) -> float:
    """Half of Student's interval of a mean, at LEVEL; nan of a single seed."""
    return float(t.ppf((1 + LEVEL) / 2, seeds - 1) * deviation / seeds**0.5) if seeds > 1 else math.nan


def curve(folder: Path) -> list[list[float]]:
    """(step, training loss) as metrics.csv has them; of a long run the means of POINTS stretches."""
    if not (folder / "metrics.csv").is_file():
        return []
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [(float(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file) if row.get("train/loss")]
    stretches = np.array_split(np.array(rows), min(POINTS, len(rows))) if rows else []
    return [[round(float(step)), float(f"{loss:.4g}")] for step, loss in (part.mean(axis=0) for part in stretches)]


def said(found: dict[str, Any], first: str) -> dict[str, str]:
    """The charts of a domain in words."""
    scores = "; ".join(
        f"{mean['value']} {figure(mean['mean'])} ("
        f"{', '.join(figure(run['score']) for run in found['runs'] if run['value'] == mean['value'])})"
        for mean in found["means"]
    )
    effects = "; ".join(
        f"{effect['value']} {figure(effect['change'], '+.3g')} ({figure(effect['low'], '+.3g')} to "
        f"{figure(effect['high'], '+.3g')}){'' if effect['sure'] else ', not sure'}"
        for effect in found["effects"]
    )
    curves = "; ".join(
        f"{run['value']} seed {run['seed']} from {run['curve'][0][1]:g} to {run['curve'][-1][1]:g}"
        for run in found["runs"]
        if run["curve"]
    )
    return {
        "scores": f"{found['metric']}, {found['better']} is better, mean and each seed: {scores}",
        "effects": f"change of {found['metric']} beside {first}, positive is better: {effects}",
        "costs": f"each run's {found['metric']} against its cost; the table of every run has the figures",
        "curves": f"training loss, first and last point: {curves}",
    }


def differing(results: dict[str, Any], domain: str) -> list[tuple[str, list[str]]]:
    """The settings that are not the same for all values of the factor: name, and what each value has of it."""
    configs = []
    for value in results["values"]:
        runs = (r["run"] for r in results["rows"] if (r["domain"], r["value"]) == (domain, value))
        written = (Path(run) / "config.yaml" for run in runs)
        path = next((path for path in written if path.is_file()), None)
        configs.append(flat(OmegaConf.to_container(OmegaConf.load(path))) if path else None)
    known = [config for config in configs if config is not None]
    names = dict.fromkeys(name for config in known for name in config if name not in ("seed", "run"))
    return [
        (name, ["–" if config is None else config.get(name, "–") for config in configs])
        for name in names
        if len({config.get(name) for config in known}) > 1
    ]


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """A configuration as full names and their values, as a person would type them."""
    if not isinstance(tree, dict):
        return {prefix: tree if isinstance(tree, str) else json.dumps(tree)}
    return {
        full: leaf
        for name, part in tree.items()
        for full, leaf in flat(part, f"{prefix}.{name}" if prefix else name).items()
    }


def places(rows: list[dict[str, Any]]) -> list[tuple[int, dict[str, str]]]:
    """Where the runs were made, as they say themselves: how many, and machine, device, versions and commit."""
    found: dict[str, tuple[int, dict[str, str]]] = {}
    for row in rows:
        path = Path(row["run"]) / "summary.json"
        if path.is_file():
            summary = json.loads(path.read_text(encoding="utf-8"))
            place = {name: str(summary.get(name, "unknown")) for name in WHERE} | summary["versions"]
            key = json.dumps(place)
            found[key] = (found[key][0] + 1 if key in found else 1, place)
    return list(found.values())
