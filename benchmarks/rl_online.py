"""CartPole from random play, then from the agent's own episodes: the commands of docs/rl.md in a loop, for each seed.

    python benchmarks/rl_online.py [--seeds 0,1,2] [--rounds 6] [--folder outputs/online]

Round 0 plays at random, and a run learns from it. Every other round plays EPISODES by the last run, asked for TARGET,
and a run goes on from its weights with all episodes so far. The score of a round is the mean return of the episodes
that it plays: new ones, by which nothing was chosen. Writes docs/rl_online.json; seeds that are there stay.
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from domains.rl.trajectories import read
from experiments.compose import compose
from experiments.environment import environment
from experiments.runs import write_json
from experiments.train import train
from experiments.training.progress import make_progress

ENV, TARGET, FIRST, EPISODES, STEPS = "CartPole-v1", 500, 200, 50, 200
SIZES = ["model.dim=32", "model.depth=1", "model.num_heads=2", "data.context=5"]
SETTINGS = [*SIZES, "data.temperature=0.5", "data.top_share=0.5"]
FILE = Path(__file__).parents[1] / "docs" / "rl_online.json"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--folder", type=Path, default=Path("outputs/online"))
    args = options.parse_args()
    for seed in map(int, args.seeds.split(",")):
        began = time.perf_counter()
        returns = learn(seed, args.rounds, args.folder / str(seed))
        keep({"seed": seed, "returns": returns, "seconds": round(time.perf_counter() - began)})


def keep(run: dict[str, Any]) -> None:
    """Add the run of a seed to the file."""
    where = environment()
    found = json.loads(FILE.read_text()) if FILE.exists() else {"runs": []}
    before = {key: found[key] for key in where if key in found}  # once the file said it for all
    known = [before | other for other in found["runs"] if other["seed"] != run["seed"]]
    runs = sorted([*known, run | where], key=lambda other: other["seed"])
    rows = [
        {"round": number, "mean": mean(column), "deviation": stdev(column) if len(column) > 1 else None}
        for number, column in enumerate(zip(*(other["returns"] for other in runs), strict=True))
    ]
    settings_record = {"environment": ENV, "target": TARGET, "random_episodes": FIRST, "episodes": EPISODES}
    settings_record |= {"steps": STEPS, "settings": SETTINGS}
    write_json(FILE, {"rows": rows, "runs": runs, **settings_record})
    print(run)


def learn(seed: int, rounds: int, folder: Path) -> list[float]:
    """Return the mean return of the episodes of each round; the first round is random."""
    files, returns, init = [], [], []
    for number in range(rounds + 1):
        files.append(folder / f"{number}.npz")
        policy = [f"policy={folder}/run_{number - 1}", f"target={TARGET}", f"episodes={EPISODES}"]
        collect = policy if number else [f"episodes={FIRST}"]
        options = [f"env={ENV}", *collect, f"seed={100 * seed + number}", f"output={files[-1]}"]
        import_module("experiments.collect").run(compose("collect", options))
        returns.append(float(read(files[-1])[1].returns.mean()))
        print(f"seed {seed}, round {number}: {returns[-1]:.1f}", flush=True)
        if number == rounds:
            return returns
        run, paths = folder / f"run_{number}", ",".join(map(str, files))
        options = ["domain=rl", "data=trajectories", f"data.path=[{paths}]", f"seed={seed}", f"run={run}", *init]
        options += [*SETTINGS, f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={STEPS}", "logger=csv"]
        with make_progress() as progress:
            train(compose("config", options), run, progress)
        init = [f"init={run}"]
    raise AssertionError


if __name__ == "__main__":
    main()
