"""`attend transfer`: does a core that was trained on one domain help another?

    scratch   a new core under a new adapter, both trained: what the others are compared with
    random    the same, the core frozen as it was drawn
    tuned     the core of another run under a new adapter, both trained
    frozen    the same, the core frozen

What is frozen are the matrices and biases of the blocks, not the norms.

Source: Lu et al. 2021, "Pretrained transformers as universal computation engines".
"""

import math
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from experiments.comparison import summarise, told
from experiments.compose import choices, compose, written
from experiments.config import Mode, TransferConfig
from experiments.environment import environment
from experiments.report.comparison import finite
from experiments.report.transfer import write_transfer
from experiments.runs import typed, write_json
from experiments.sweep import Job, digest, found, launch, write_rows
from experiments.terminal import terminal
from experiments.training.init_from import CORE

FROM = (Mode.tuned, Mode.frozen)  # that begin with the core of another run


def run(config: DictConfig) -> None:
    """Trains where cores come from, then where they go, as far as that is not done; writes results and report."""
    plan: TransferConfig = typed(TransferConfig, config)
    check(plan)
    output, console = Path(plan.output), terminal()
    first = pretraining(plan)
    console.print(f"{len(first)} runs to train cores, in {output}")
    launch(output, first)
    for job in first:
        keep_core(folder(output, job))
    jobs = list({job["key"]: job for job in [*first, *finetuning(plan, first)]}.values())  # from scratch is one run
    console.print(f"{len(jobs)} runs in all")
    launch(output, jobs)
    results = collect(plan, found(output, jobs))
    write_json(output / "results.json", finite(results))
    write_rows(output / "results.csv", results["rows"])
    write_transfer(output / "report.html", results)
    show(results, console)
    console.print(f"wrote {output}/results.csv, {output}/results.json and {output}/report.html")


def check(plan: TransferConfig) -> None:
    """Raises ValueError for a plan that cannot be."""
    known = choices("domain")
    for key, domains in (("pretrain", plan.pretrain), ("finetune", plan.finetune)):
        if not domains or len(set(domains)) < len(domains) or set(domains) - set(known):
            raise ValueError(f"{key}=[{', '.join(domains)}] must be one or more of {', '.join(known)}, each once")
    if Mode.scratch not in plan.modes or len(plan.modes) < 2:
        modes = ", ".join(mode.value for mode in plan.modes)
        raise ValueError(f"modes=[{modes}] must hold scratch and one other: {', '.join(mode.value for mode in Mode)}")
    if plan.seeds < 1 or plan.scale <= 0:
        raise ValueError(f"seeds={plan.seeds} must be at least 1, and scale={plan.scale} positive")


def pretraining(plan: TransferConfig) -> list[Job]:
    """A run from scratch for each domain that a core comes from, and seed."""
    jobs = []
    for domain in plan.pretrain:
        common = settings(plan, domain)
        jobs += [make_job(domain, "scratch", seed, common) for seed in range(plan.seeds)]
    return jobs


def finetuning(plan: TransferConfig, cores: list[Job]) -> list[Job]:
    """All runs where cores go: domain by domain, the values in the order of the table."""
    jobs = []
    for domain in plan.finetune:
        common = settings(plan, domain)
        for value, (source, mode) in values(plan).items():
            for seed in range(plan.seeds):
                words = ["frozen=true"] if mode in (Mode.random, Mode.frozen) else []
                words += [
                    f"init={folder(Path(plan.output), core) / 'core'}"
                    for core in cores
                    if (core["domain"], core["seed"]) == (source, seed)
                ]
                jobs.append(make_job(domain, value, seed, [*common, *words]))
    return jobs


def values(plan: TransferConfig) -> dict[str, tuple[str | None, Mode]]:
    """(where the core comes from, mode) by name, such as "vision tuned"; first what the others are compared with."""
    new = [(None, mode) for mode in (Mode.scratch, Mode.random)]
    kinds = [*new, *((source, mode) for source in plan.pretrain for mode in FROM)]
    return {
        " ".join([*filter(None, [source]), mode.value]): (source, mode) for source, mode in kinds if mode in plan.modes
    }


def settings(plan: TransferConfig, domain: str) -> list[str]:
    """What all runs of a domain have in common."""
    core = [f"model.{name}={written(setting)}" for name, setting in plan.core.items()]
    plain = [f"domain={domain}", *core, *plan.settings]
    steps = max(1, round(plan.scale * compose("config", plain).trainer.max_steps))
    ours = ["logger=csv", "trainer.devices=1", f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}"]
    return [*plain, *ours]


def make_job(domain: str, value: str, seed: int, words: list[str]) -> Job:
    overrides = [*words, f"seed={seed}"]
    key = digest(compose("config", overrides))
    return {"domain": domain, "value": value, "seed": seed, "overrides": overrides, "key": key}


def folder(output: Path, job: Job) -> Path:
    return output / "runs" / job["key"]


def keep_core(home: Path) -> None:
    """RUN/core holds the weights of the core alone, so that all else is new where it goes, even in its own domain."""
    if not (home / "weights.safetensors").is_file():  # it failed, and so will the runs that begin with it
        return
    (home / "core").mkdir(exist_ok=True)
    for name in ("config.yaml", "spec.json"):
        shutil.copy(home / name, home / "core" / name)
    weights = load_file(home / "weights.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if name.startswith(CORE)},
        home / "core" / "weights.safetensors",
    )


def collect(plan: TransferConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is known: a row for each run; the scores of each domain and value, and the effects beside scratch."""
    known = values(plan)
    lines = summarise(rows, list(known), plan.finetune)
    for line in lines:
        line["pretrain"], line["mode"] = known[line["value"]]
    results = {**vars(plan), "values": list(known), "effects": lines, "rows": rows, **environment()}
    return results | {"verdicts": verdicts(lines)}


def show(results: dict[str, Any], console: Console) -> None:
    """Where cores come from by where they go; then what can be said for sure."""
    lines = {(line["domain"], line["value"]): line for line in results["effects"]}
    metrics = {line["domain"]: line["metric"] for line in results["effects"] if line["seeds"]}
    table = Table(
        "core of",
        *(f"{domain}\n{metrics.get(domain, '')}" for domain in results["finetune"]),
        show_lines=True,
    )
    for value in results["values"]:
        table.add_row("\n".join(value.split()), *(cell(lines[domain, value]) for domain in results["finetune"]))
    console.print(table)
    console.print("below a score: how much better than from scratch, in % of that; the 95 % interval; * sure")
    for row in results["rows"]:
        if "error" in row:
            what = f"{row['domain']} {row['value']} seed {row['seed']}"
            console.print(f"  {what} failed: {row['error']}")
    for sentence in results["verdicts"]:
        console.print(sentence)


def cell(line: dict[str, Any]) -> str:
    """A score, its effect below, and the interval of that."""
    if not line["seeds"]:
        return "failed"
    score = f"{line['mean']:.4g}" + ("" if math.isnan(line["deviation"]) else f" ± {line['deviation']:.2g}")
    if "change" not in line:
        return score
    change, interval = told(line)
    return "\n".join(filter(None, [score, change + (" *" if line["sure"] else ""), interval]))


def verdicts(lines: list[dict[str, Any]]) -> list[str]:
    """A sentence for each effect whose interval excludes zero; one that says so if there is none."""
    sure = [
        f"{line['domain']}: {line['value']} is {'better' if line['change'] > 0 else 'worse'} than scratch in "
        f"{line['metric']}: {' ('.join(told(line))}; {line['paired']} seeds)"
        for line in lines
        if line.get("sure")
    ]
    return sure or ["no effect is sure: no Student's interval excludes zero; more seeds would narrow them"]
