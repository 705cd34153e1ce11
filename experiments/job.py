"""One run of many, in a process of its own, so that runs neither share memory nor fail together.

    python -m experiments.job FOLDER NUMBER         FOLDER/plan.json says what that run is

Writes FOLDER/runs/KEY: a run folder as any other, and result.json, when it is done or has failed.
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

RANKS = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE"}


def alone(words: list[str], log: Path | None = None) -> int:
    """Runs a module of ours as a process that knows nothing of this one's ranks. Returns its exit status.

    Args:
        words: the module and its arguments.
        log: the file that gets what it says; the terminal does if None.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in RANKS and not name.startswith("MASTER_")
    }
    side_by_side = HydraConfig.get().launcher.get("n_jobs", 1)  # of joblib's launcher; -1: as many as there are cores
    if side_by_side != 1:  # threads that fight for a core make each other several times slower
        cores = os.cpu_count() or 1
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // side_by_side) if side_by_side > 1 else 1))
    command = [sys.executable, "-m", *words]
    if log is None:
        return _waited(subprocess.Popen(command, env=environment))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        return _waited(subprocess.Popen(command, env=environment, stdout=file, stderr=file))


def _waited(process: subprocess.Popen) -> int:
    """The exit status. Whoever ends this process, a scheduler or Ctrl-C, has told that one too: it writes a checkpoint
    and comes to its end by itself, and nothing here kills it before."""
    try:
        return process.wait()
    except BaseException:
        process.wait()
        raise


def swept() -> float:
    """A job of `attend train -m`: the same overrides, in a process of its own. Returns the validation loss.

    Within Hydra's multirun every rank of a distributed training would run the whole sweep.

    Raises:
        RuntimeError: if it failed; what it said stands on the terminal.
    """
    known = HydraConfig.get()
    folder = Path(known.runtime.output_dir)
    words = [from_hydra(word) for word in known.overrides.task]
    if alone(["experiments.cli", "train", *words, f"run={folder}"]):
        raise RuntimeError(f"the run in {folder} failed")
    return json.loads((folder / "summary.json").read_text())["val"].get("loss", float("nan"))


def begin(config: DictConfig) -> None:
    """What Hydra's launcher calls, here or on another machine: the run, then a line on how it went."""
    folder, number = Path(config.comparison), config.number
    plan = json.loads((folder / "plan.json").read_text())
    job = plan["jobs"][number]
    run = folder / "runs" / job["key"]
    status = alone(["experiments.job", str(folder), str(number)], run / "log.txt")
    if not (run / "result.json").is_file():  # it was killed, or had no memory
        lines = (run / "log.txt").read_text().strip().splitlines() or [f"it ended with status {status}"]
        (run / "result.json").write_text(json.dumps({"error": lines[-1]}))
    result = json.loads((run / "result.json").read_text())
    done = [other for other in plan["jobs"] if (folder / "runs" / other["key"] / "result.json").is_file()]
    fresh, left = len(done) - plan["finished"], len(plan["jobs"]) - len(done)
    minutes = (time.time() - plan["began"]) / max(fresh, 1) * left / 60
    rest = f"{left} left, about {minutes:.0f} min" if left else "all done"
    how = f"failed: {result['error']}" if "error" in result else f"{result['metric']} {result['score']:.4g}"
    print(f"  {job['domain']} {job['value']} seed {job['seed']}: {how}  ({rest})", flush=True)


def run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Trains and evaluates; returns what the results' table says of it."""
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
        "flops": summary["flops_a_step"] * summary["steps"],
        "seconds": summary["seconds"],
        "peak_memory": summary["peak_memory"],
        "tokens_per_second": summary["tokens_a_step"] * summary["steps"] / summary["seconds"],
    }


def main() -> None:
    from experiments.runs import write_json  # here, for who hands runs over needs no torch

    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    job = json.loads((folder / "plan.json").read_text())["jobs"][number]
    home = folder / "runs" / job["key"]
    try:
        result = run(home, job)
    except ValueError as error:
        result = {"error": " ".join(str(error).split())}
    write_json(home / "result.json", result)


if __name__ == "__main__":
    main()
