"""Many runs under one folder: which are done, which are left, and Hydra's launchers for those.

plan.json            the runs that there are to be
runs/KEY             a run folder each, named by what the run is, with result.json and log.txt
"""

import csv
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from experiments.job import begin
from experiments.runs import write_json

COLUMNS = ["domain", "value", "seed", "metric", "score", "lower_is_better", "steps", "parameters", "flops", "seconds"]
COLUMNS += ["peak_memory", "tokens_per_second", "error", "run"]

Job = dict[str, Any]  # domain, value, seed; overrides of `attend train`; key


def digest(config: DictConfig) -> str:
    """Names a run by what it is, so that it is found again: all of its configuration but where it lies."""
    plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    text = json.dumps({name: value for name, value in plain.items() if name != "run"}, sort_keys=True)
    return f"{config.domain.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def finished(output: Path, job: Job) -> bool:
    """Whether it has a result; one that failed is tried again."""
    path = output / "runs" / job["key"] / "result.json"
    if path.is_file() and "error" in json.loads(path.read_text()):
        path.unlink()
    return path.is_file()


def launch(output: Path, jobs: list[Job]) -> None:
    """Hands the runs that are left to Hydra: one after the other, or however `hydra/launcher=…` says.

    Each is a process of its own (experiments/job.py), which may use several devices: under Hydra's multirun itself
    every rank would run all of them.
    """
    left = [number for number, job in enumerate(jobs) if not finished(output, job)]
    write_json(output / "plan.json", {"jobs": jobs, "began": time.time(), "finished": len(jobs) - len(left)})
    if left:
        words = [f"comparison={output}", f"number={','.join(map(str, left))}"]
        words += [word for word in sys.argv[2:] if word.startswith("hydra")]
        arguments, sys.argv = sys.argv, [sys.argv[0], "--multirun", *words]
        hydra.main(config_path="pkg://conf", config_name="job", version_base="1.3")(begin)()
        sys.argv = arguments


def found(output: Path, jobs: list[Job]) -> list[dict[str, Any]]:
    """A row for each run: its score and costs, or its error."""
    rows = []
    for job in jobs:
        path = output / "runs" / job["key"]
        what = {name: job[name] for name in ("domain", "value", "seed")}
        rows.append({**what, **json.loads((path / "result.json").read_text()), "run": str(path)})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        table.writerows(rows)
