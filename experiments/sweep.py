"""Many runs in one folder; Hydra's launchers start those that have no result yet.

jobs.json            the runs of the sweep
runs/KEY             one run folder each, named by a hash of its configuration, with result.json and log.txt
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

from experiments.job import run_launched_job
from experiments.runs import write_json

COLUMNS = ["domain", "value", "seed", "metric", "score", "lower_is_better", "steps", "parameters", "flops", "seconds"]
COLUMNS += ["peak_memory", "tokens_per_second", "error", "run"]

Job = dict[str, Any]  # domain, value, seed; overrides of `attend train`; key


def run_key(config: DictConfig) -> str:
    """Return a key of a run: its domain, and a hash of its configuration without the folder."""
    values = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    assert isinstance(values, dict)
    text = json.dumps({name: value for name, value in values.items() if name != "run"}, sort_keys=True)
    return f"{config.domain.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def is_finished(output: Path, job: Job) -> bool:
    """Return whether a job has a result. The result of a failed run is deleted, so that it runs again."""
    path = output / "runs" / job["key"] / "result.json"
    if path.is_file() and "error" in json.loads(path.read_text()):
        path.unlink()
    return path.is_file()


def launch_jobs(output: Path, jobs: list[Job]) -> None:
    """Run the jobs that have no result: one after the other, or as `hydra/launcher=…` says.

    Each runs in its own process (experiments/job.py), which may use several devices.
    """
    remaining = [number for number, job in enumerate(jobs) if not is_finished(output, job)]
    write_json(output / "jobs.json", {"jobs": jobs, "began": time.time(), "finished": len(jobs) - len(remaining)})
    if remaining:
        overrides = [f"folder={output}", f"number={','.join(map(str, remaining))}"]
        overrides += [word for word in sys.argv[2:] if word.startswith("hydra")]
        arguments, sys.argv = sys.argv, [sys.argv[0], "--multirun", *overrides]
        hydra.main(config_path="pkg://conf", config_name="job", version_base="1.3")(run_launched_job)()
        sys.argv = arguments


def read_results(output: Path, jobs: list[Job]) -> list[dict[str, Any]]:
    """Return a row for each run: its score and costs, or its error."""
    rows = []
    for job in jobs:
        path = output / "runs" / job["key"]
        identity = {name: job[name] for name in ("domain", "value", "seed")}
        rows.append({**identity, **json.loads((path / "result.json").read_text()), "run": str(path)})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        table.writerows(rows)
