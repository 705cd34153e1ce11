"""One run of a sweep in its own process: runs share no memory, and one that fails does not stop the others.

    python -m experiments.job FOLDER NUMBER         trains run NUMBER of FOLDER/jobs.json

Writes FOLDER/runs/KEY: an ordinary run folder with result.json, whether the run succeeded or failed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.overrides import from_hydra

RANK_VARIABLES = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE"}


def run_subprocess(arguments: list[str], log: Path | None = None) -> int:
    """Run a module in a new process without this one's rank variables, and return its exit status.

    Args:
        arguments: the module and its arguments.
        log: file for stdout and stderr; the terminal if None.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in RANK_VARIABLES and not name.startswith("MASTER_")
    }
    n_jobs = HydraConfig.get().launcher.get("n_jobs", 1)  # of joblib's launcher; -1: as many as there are cores
    if n_jobs != 1:  # threads that fight for a core make each other several times slower
        cores = os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_jobs) if n_jobs > 1 else 1))
    command = [sys.executable, "-m", *arguments]
    if log is None:
        return _wait(subprocess.Popen(command, env=environment))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        return _wait(subprocess.Popen(command, env=environment, stdout=file, stderr=file))


def _wait(process: subprocess.Popen) -> int:
    """Return the exit status. Ctrl-C and a scheduler signal the child too: it writes a checkpoint and exits by itself,
    so it is not killed here."""
    try:
        return process.wait()
    except BaseException:
        process.wait()
        raise


def run_sweep_job() -> float:
    """Run one job of `attend train -m` in a new process, and return its validation loss.

    In Hydra's own multirun every rank of a distributed training would run the whole sweep.

    Raises:
        RuntimeError: if the run failed; its message is on the terminal.
    """
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    arguments = [from_hydra(word) for word in hydra_config.overrides.task]
    if run_subprocess(["experiments.cli", "train", *arguments, f"run={folder}"]):
        raise RuntimeError(f"the run in {folder} failed")
    return json.loads((folder / "summary.json").read_text())["val"].get("loss", float("nan"))


def run_launched_job(config: DictConfig) -> None:
    """Run one job for Hydra's launcher, on this machine or another, and print a line about its outcome."""
    folder, number = Path(config.folder), config.number
    sweep = json.loads((folder / "jobs.json").read_text())
    job = sweep["jobs"][number]
    run_folder = folder / "runs" / job["key"]
    status = run_subprocess(["experiments.job", str(folder), str(number)], run_folder / "log.txt")
    if not (run_folder / "result.json").is_file():  # killed, or out of memory
        lines = (run_folder / "log.txt").read_text().strip().splitlines() or [f"it ended with status {status}"]
        (run_folder / "result.json").write_text(json.dumps({"error": lines[-1]}))
    result = json.loads((run_folder / "result.json").read_text())
    done = [other for other in sweep["jobs"] if (folder / "runs" / other["key"] / "result.json").is_file()]
    new_results, remaining = len(done) - sweep["finished"], len(sweep["jobs"]) - len(done)
    minutes = (time.time() - sweep["began"]) / max(new_results, 1) * remaining / 60
    remaining_text = f"{remaining} left, about {minutes:.0f} min" if remaining else "all done"
    outcome = f"failed: {result['error']}" if "error" in result else f"{result['metric']} {result['score']:.4g}"
    print(f"  {job['domain']} {job['value']} seed {job['seed']}: {outcome}  ({remaining_text})", flush=True)


def train_and_evaluate(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate one run, and return its row of the results."""
    from experiments.compose import compose
    from experiments.evaluate import evaluate
    from experiments.train import train
    from experiments.training.progress import make_progress

    config = compose("config", [*job["overrides"], f"run={folder}"])
    with make_progress() as progress:
        summary = train(config, folder, progress)
    if not summary:  # not the first rank
        sys.exit()
    evaluation = evaluate(folder, folder / "evaluate")
    score = evaluation.compared or evaluation.scores[0]
    return {
        "metric": score.metric,
        "score": score.value,
        "lower_is_better": score.lower_is_better,
        "steps": summary["steps"],
        "parameters": summary["parameters"],
        "flops": summary["flops_per_step"] * summary["steps"],
        "seconds": summary["seconds"],
        "peak_memory": summary["peak_memory"],
        "tokens_per_second": summary["tokens_per_step"] * summary["steps"] / summary["seconds"],
    }


def main() -> None:
    from experiments.runs import write_json  # here: the process that launches the runs needs no torch

    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    job = json.loads((folder / "jobs.json").read_text())["jobs"][number]
    run_folder = folder / "runs" / job["key"]
    try:
        result = train_and_evaluate(run_folder, job)
    except ValueError as error:
        result = {"error": " ".join(str(error).split())}
    write_json(run_folder / "result.json", result)


if __name__ == "__main__":
    main()
