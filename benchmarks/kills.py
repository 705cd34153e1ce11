"""Kill runs at random moments, resume them, and compare their weights with those of an uninterrupted run.

A run is a separate process; it is ended by SIGKILL, in one of four cases by SIGTERM, and restarted until it finishes.
Checkpoints are written every second step, so that some kills happen during a write.

    python benchmarks/kills.py [--kills 36] [--others 5] [--seed 0]

`kills` are those of domain=vision, `others` those of each other domain. Prints a line for each run and writes
docs/results/kills.json.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from safetensors.torch import load_file

from experiments.compose import compose
from experiments.environment import environment
from experiments.runs import write_json
from experiments.train import train

STEPS = 12
TINY = [
    *("model.dim=16", "model.depth=1", "model.num_heads=2", "trainer=cpu", "logger.tensorboard=false"),
    *(f"trainer.max_steps={STEPS}", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1"),
    *("model.dropout=0.1", "trainer.ema_decay=0.9", "trainer.accumulate_grad_batches=2"),
]
DOMAINS = {
    "vision": ["data.mixup=0.8", "data.augment=affine", "data.batch_size=16"],
    "protein": ["data.batch_size=8", "data.crop_size=16", "model.pair_dim=4", "trainer.val_check_interval=6"],
    "rl": ["data.episodes=7", "data.batch_size=8"],
    "text": ["data.context=16", "data.batch_size=8", "data.ngram_lookup=[]", "data.val=200"],
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=36)
    options.add_argument("--others", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    torch.set_num_threads(1)
    rows, rng = [], random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        for domain in DOMAINS:
            kills_wanted, kills_done = args.kills if domain == "vision" else args.others, 0
            for workers in (0, 2) if domain == "vision" else (2,):
                settings = [f"domain={domain}", *TINY, *DOMAINS[domain], f"data.workers={workers}"]
                whole = Path(folder, f"{domain}_{workers}")
                seconds = wait_for_cpu_seconds(start_run(whole, settings))
                share = kills_wanted // 2 if (domain, workers) == ("vision", 0) else kills_wanted
                while kills_done < share:
                    rows.append({"domain": domain, "workers": workers, **one_run(whole, settings, seconds, rng)})
                    kills_done += rows[-1]["kills"]
                    print(rows[-1], flush=True)
    totals = {name: sum(row[name] for row in rows) for name in ("kills", "in_training", "in_writing", "sigterm")}
    totals |= {"runs": len(rows), "same": sum(row["same"] for row in rows)}
    settings_record = {"domain": "all", "steps": STEPS, "seed": args.seed}
    path = Path(__file__).parent.parent / "docs" / "results" / "kills.json"
    write_json(path, {"together": totals, "rows": rows, **settings_record, **environment()})
    print(totals)


def one_run(whole: Path, settings: list[str], seconds: float, rng: random.Random) -> dict[str, Any]:
    """Kill and restart one run until it finishes, each time within the CPU `seconds` of an uninterrupted run."""
    folder, count = whole.with_name(f"{whole.name}_{rng.random()}"), Counter()
    while (process := run_and_kill(folder, settings, seconds, rng, count)).exitcode:
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), process.exitcode
        count["kills"] += 1
    ours, theirs = (load_file(run / "weights.safetensors") for run in (folder, whole))
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return {name: count[name] for name in ("kills", "in_training", "in_writing", "sigterm")} | {"same": same}


def run_and_kill(folder: Path, settings: list[str], seconds: float, rng: random.Random, count: Counter):
    before, number = unfinished(folder), rng.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
    process = start_run(folder, settings)
    wait_for_cpu_seconds(process, rng.random() * seconds)
    if process.exitcode is None:
        began = any((folder / "checkpoints").glob("*"))
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join()
        if process.exitcode:  # it did not come to its end before it heard the signal
            half = bool(unfinished(folder) - before)
            count.update(in_training=int(began), in_writing=int(half), sigterm=int(number == signal.SIGTERM))
    return process


def wait_for_cpu_seconds(process, limit: float = float("inf")) -> float:
    """Wait until a process ends or has used `limit` CPU seconds, and return the seconds used."""
    clock, seconds = ((~process.pid) << 3) | 2, 0.0  # Linux: CLOCK_PROCESS_CPUTIME_ID of another process
    while process.exitcode is None and seconds < limit:
        with suppress(OSError):  # it has just ended
            seconds = time.clock_gettime(clock)
        process.join(0.02)
    return seconds


def unfinished(folder: Path) -> set[tuple[Path, int]]:
    """Return the unfinished files of a folder, with their times."""
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob("*.unfinished")}


def start_run(folder: Path, settings: list[str]):
    process = get_context("fork").Process(target=train_quietly, args=(folder, settings))
    process.start()
    return process


def train_quietly(folder: Path, settings: list[str]) -> None:
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        train(compose("config", [*settings, f"run={folder}"]), folder, Progress(disable=True))


if __name__ == "__main__":
    main()
