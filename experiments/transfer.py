"""`attend transfer`: test whether a core trained on one domain helps another.

    scratch   a new core and a new adapter, both trained: the baseline
    random    the same, but the core keeps its random initial weights
    tuned     the core of another run and a new adapter, both trained
    frozen    the same, but the core is frozen

A frozen core keeps the matrices and biases of its blocks; the norms are trained.

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

from experiments.compose import choices, compose, format_value
from experiments.config import Mode, TransferConfig
from experiments.console import make_console
from experiments.effects import format_effect, summarise
from experiments.environment import environment
from experiments.report.comparison import nan_to_none
from experiments.report.transfer import write_transfer
from experiments.runs import to_dataclass, write_json
from experiments.sweep import Job, launch_jobs, read_results, run_key, write_csv
from experiments.training.init_from import CORE_PREFIXES

FROM = (Mode.tuned, Mode.frozen)  # start from the core of another run


def run(config: DictConfig) -> None:
    """Train the missing source runs, then the missing target runs; write the results and a report."""
    c: TransferConfig = to_dataclass(TransferConfig, config)
    check_config(c)
    output, console = Path(c.output), make_console()
    first = pretraining_jobs(c)
    console.print(f"{len(first)} runs to train cores, in {output}")
    launch_jobs(output, first)
    for job in first:
        write_core(folder(output, job))
    jobs = list({job["key"]: job for job in [*first, *finetuning_jobs(c, first)]}.values())  # from scratch is one run
    console.print(f"{len(jobs)} runs in all")
    launch_jobs(output, jobs)
    results = collect_results(c, read_results(output, jobs))
    write_json(output / "results.json", nan_to_none(results))
    write_csv(output / "results.csv", results["rows"])
    write_transfer(output / "report.html", results)
    print_results(results, console)
    console.print(f"wrote {output}/results.csv, {output}/results.json and {output}/report.html")


def check_config(config: TransferConfig) -> None:
    """Raise ValueError for an impossible configuration."""
    known_values = choices("domain")
    for key, domains in (("pretrain", config.pretrain), ("finetune", config.finetune)):
        if not domains or len(set(domains)) < len(domains) or set(domains) - set(known_values):
            raise ValueError(
                f"{key}=[{', '.join(domains)}] must be one or more of {', '.join(known_values)}, each once"
            )
    if Mode.scratch not in config.modes or len(config.modes) < 2:
        modes = ", ".join(mode.value for mode in config.modes)
        raise ValueError(f"modes=[{modes}] must hold scratch and one other: {', '.join(mode.value for mode in Mode)}")
    if config.seeds < 1 or config.scale <= 0:
        raise ValueError(f"seeds={config.seeds} must be at least 1, and scale={config.scale} positive")


def pretraining_jobs(config: TransferConfig) -> list[Job]:
    """Return the jobs that train the cores: one from scratch for each source domain and seed."""
    jobs = []
    for domain in config.pretrain:
        common = common_settings(config, domain)
        jobs += [make_job(domain, "scratch", seed, common) for seed in range(config.seeds)]
    return jobs


def finetuning_jobs(config: TransferConfig, cores: list[Job]) -> list[Job]:
    """Return the jobs that use the cores: domain by domain, the values in the order of the table."""
    jobs = []
    for domain in config.finetune:
        common = common_settings(config, domain)
        for value, (source, mode) in values(config).items():
            for seed in range(config.seeds):
                extra = ["frozen=true"] if mode in (Mode.random, Mode.frozen) else []
                extra += [
                    f"init={folder(Path(config.output), core) / 'core'}"
                    for core in cores
                    if (core["domain"], core["seed"]) == (source, seed)
                ]
                jobs.append(make_job(domain, value, seed, [*common, *extra]))
    return jobs


def values(config: TransferConfig) -> dict[str, tuple[str | None, Mode]]:
    """Return (source domain, mode) by name, such as "vision tuned"; the baseline first."""
    new = [(None, mode) for mode in (Mode.scratch, Mode.random)]
    kinds = [*new, *((source, mode) for source in config.pretrain for mode in FROM)]
    return {
        " ".join([*filter(None, [source]), mode.value]): (source, mode)
        for source, mode in kinds
        if mode in config.modes
    }


def common_settings(config: TransferConfig, domain: str) -> list[str]:
    """Return the overrides that all runs of a domain share."""
    core = [f"model.{name}={format_value(setting)}" for name, setting in config.core.items()]
    common_overrides = [f"domain={domain}", *core, *config.settings]
    steps = max(1, round(config.scale * compose("config", common_overrides).trainer.max_steps))
    trainer_overrides = [
        "logger=csv",
        "trainer.devices=1",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
    ]
    return [*common_overrides, *trainer_overrides]


def make_job(domain: str, value: str, seed: int, extra: list[str]) -> Job:
    overrides = [*extra, f"seed={seed}"]
    key = run_key(compose("config", overrides))
    return {"domain": domain, "value": value, "seed": seed, "overrides": overrides, "key": key}


def folder(output: Path, job: Job) -> Path:
    return output / "runs" / job["key"]


def write_core(run_folder: Path) -> None:
    """Write the weights of the core alone to RUN/core, so that everything else is new, even in the same domain."""
    if not (run_folder / "weights.safetensors").is_file():  # it failed, and so will the runs that start from it
        return
    (run_folder / "core").mkdir(exist_ok=True)
    for name in ("config.yaml", "spec.json"):
        shutil.copy(run_folder / name, run_folder / "core" / name)
    weights = load_file(run_folder / "weights.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if name.startswith(CORE_PREFIXES)},
        run_folder / "core" / "weights.safetensors",
    )


def collect_results(config: TransferConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results: a row for each run, the scores and effects against scratch, and the verdicts."""
    known_values = values(config)
    lines = summarise(rows, list(known_values), config.finetune)
    for line in lines:
        line["pretrain"], line["mode"] = known_values[line["value"]]
    results = {**vars(config), "values": list(known_values), "effects": lines, "rows": rows, **environment()}
    return results | {"verdicts": verdicts(lines)}


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print the table of source by target domain, then the verdicts."""
    lines = {(line["domain"], line["value"]): line for line in results["effects"]}
    metrics = {line["domain"]: line["metric"] for line in results["effects"] if line["seeds"]}
    table = Table(
        "core of",
        *(f"{domain}\n{metrics.get(domain, '')}" for domain in results["finetune"]),
        show_lines=True,
    )
    for value in results["values"]:
        table.add_row("\n".join(value.split()), *(table_cell(lines[domain, value]) for domain in results["finetune"]))
    console.print(table)
    console.print("below a score: how much better than from scratch, in % of that; the 95 % interval; * sure")
    for row in results["rows"]:
        if "error" in row:
            what = f"{row['domain']} {row['value']} seed {row['seed']}"
            console.print(f"  {what} failed: {row['error']}")
    for sentence in results["verdicts"]:
        console.print(sentence)


def table_cell(line: dict[str, Any]) -> str:
    """Format a score, and below it the effect and its interval."""
    if not line["seeds"]:
        return "failed"
    score = f"{line['mean']:.4g}" + ("" if math.isnan(line["deviation"]) else f" ± {line['deviation']:.2g}")
    if "change" not in line:
        return score
    change, interval = format_effect(line)
    return "\n".join(filter(None, [score, change + (" *" if line["sure"] else ""), interval]))


def verdicts(lines: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each effect whose interval excludes zero, or one that says that there is none."""
    sure = [
        f"{line['domain']}: {line['value']} is {'better' if line['change'] > 0 else 'worse'} than scratch in "
        f"{line['metric']}: {' ('.join(format_effect(line))}; {line['paired']} seeds)"
        for line in lines
        if line.get("sure")
    ]
    return sure or ["no effect is sure: no Student's interval excludes zero; more seeds would narrow them"]
