"""`attend compare`: several values of one setting, their effects in every domain, with intervals and costs."""

from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from experiments.compose import choices, compose
from experiments.config import Equal
from experiments.console import make_console
from experiments.effects import format_size, summarise
from experiments.environment import environment
from experiments.report.comparison import nan_to_none, write_comparison
from experiments.runs import write_json
from experiments.sweep import launch_jobs, read_results, run_key, write_csv

GROUPS = ("position", "optimizer", "data", "model")  # that a factor can be
SECTIONS = ("model", "optimizer", "data", "trainer", "position")  # searched for a factor given without its section
ALIASES = {"width": "model.dim"}
FULL_TABLE_WIDTH = 110  # columns


def run(config: DictConfig) -> None:
    """Train the runs that are missing, and write results.csv, results.json and report.html."""
    output, console = Path(config.output), make_console()
    comparison = make_comparison(config, output, console)
    console.print(f"{len(comparison['jobs'])} runs in {output}")
    launch_jobs(output, comparison["jobs"])
    results = collect_results(output, comparison)
    write_json(output / "results.json", nan_to_none(results))
    write_csv(output / "results.csv", results["rows"])
    write_comparison(output / "report.html", results)
    print_results(results, console)
    console.print(f"wrote {output}/results.csv, {output}/results.json and {output}/report.html")


def make_comparison(config: DictConfig, output: Path, console: Console) -> dict[str, Any]:
    """Return the jobs of a comparison: every domain, value and seed, except combinations that are impossible.

    Raises:
        ValueError: for a factor, value or setting that no domain takes.
    """
    values = [str(value) for value in config["values"]]  # .values is a method of every mapping
    if not 1 < len(set(values)) == len(values):
        raise ValueError(f"values=[{', '.join(values)}]: a comparison needs two at least, each once")
    if config.seeds < 1 or config.scale <= 0:
        raise ValueError(f"seeds={config.seeds} must be at least 1, and scale={config.scale} positive")
    known_domains = choices("domain")
    for domain in config.domains:
        if domain not in known_domains:
            raise ValueError(
                f"domains={list(config.domains)}: {domain} is unknown; possible: {', '.join(known_domains)}"
            )
    jobs, impossible = [], []
    for domain, value in product(config.domains, values):
        try:
            common = [f"domain={domain}", *config.settings]
            setting = full_setting_name(config.factor, compose("config", common))
            config_of_value = compose("config", [*common, f"{setting}={value}"])
        except ValueError as error:
            impossible.append({"domain": domain, "value": value, "reason": " ".join(str(error).split())})
            continue
        steps = max(1, round(config.scale * config_of_value.trainer.max_steps))
        for seed in range(config.seeds):
            overrides = [*common, f"{setting}={value}", f"seed={seed}", "logger=csv", "trainer.devices=1"]
            jobs.append({"domain": domain, "value": value, "seed": seed, "overrides": overrides, "steps": steps})
    for value in values:
        if all(job["value"] != value for job in jobs):
            raise ValueError(next(row["reason"] for row in impossible if row["value"] == value))
    if config.equal is not Equal.steps:
        from experiments.budget import equalize_steps

        equalize_steps(jobs, values[0], config.equal, output / "budget.json", console)
    for job in jobs:
        job["overrides"] += [f"trainer.max_steps={job['steps']}", f"trainer.val_check_interval={job['steps']}"]
        job["key"] = run_key(compose("config", job["overrides"]))
    return {
        "factor": config.factor,
        "values": values,
        "domains": list(config.domains),
        "settings": list(config.settings),
        "seeds": config.seeds,
        "equal": config.equal.value,
        "scale": config.scale,
        "jobs": jobs,
        "cannot": impossible,
    }


def full_setting_name(factor: str, config: DictConfig) -> str:
    """Return the full name of a factor's setting: model.mixer for mixer.

    Raises:
        ValueError: if the domain has no such setting.
    """
    factor = ALIASES.get(factor, factor)
    if factor in GROUPS or "." in factor:
        return factor
    for section in SECTIONS:
        if factor in config[section]:
            return f"{section}.{factor}"
    known_domains = [str(name) for section in SECTIONS for name in config[section]]
    near = get_close_matches(factor, known_domains, n=1)
    raise ValueError(
        f"factor={factor} is no setting of domain={config.domain.name}{f'; did you mean {near[0]}?' if near else ''}; "
        f"possible: {', '.join([*GROUPS, *ALIASES, *known_domains])}, or a full name such as optimizer.lr"
    )


def collect_results(output: Path, comparison: dict[str, Any]) -> dict[str, Any]:
    """Return the results: a row for each run, the effects and the verdicts."""
    rows = read_results(output, comparison["jobs"])
    results = {
        **{name: value for name, value in comparison.items() if name != "jobs"},
        "effects": summarise(rows, comparison["values"], comparison["domains"]),
        "rows": rows,
        **environment(),
    }
    return results | {"verdicts": verdicts(results)}


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print a table of effects for each domain, then the verdicts. A narrow terminal gets no columns of costs."""
    wide = console.width >= FULL_TABLE_WIDTH
    more = ("of deviation", "FLOPs", "seconds") if wide else ()
    for domain in results["domains"]:
        lines = [line for line in results["effects"] if line["domain"] == domain and line["seeds"]]
        if not lines:
            continue
        better = "lower" if lines[0]["lower_is_better"] else "higher"
        console.print(f"{domain}: {lines[0]['metric']}, {better} is better")
        table = Table(results["factor"], "score", "change", "95 %", *more)
        for line in lines:
            table.add_row(*table_row(line)[: None if wide else 4])
        console.print(table)
    for row in results["cannot"]:
        console.print(f"  {row['domain']} {row['value']}: not possible: {row['reason']}")
    for row in results["rows"]:
        if "error" in row:
            console.print(f"  {row['domain']} {row['value']} seed {row['seed']} failed: {row['error']}")
    for sentence in results["verdicts"]:
        console.print(sentence)


def table_row(line: dict[str, Any]) -> list[str]:
    """Format a row of the table."""
    change = "change" in line
    return [
        line["value"] + (" (other size)" if line.get("other_size") else ""),
        f"{line['mean']:.4g} ± {line['deviation']:.2g}",
        f"{'+' if line['change'] >= 0 else '-'}{format_size(line)}" if change else "",
        f"{line['low']:+.3g} … {line['high']:+.3g}" if change else "",
        f"{line['deviations']:+.1f}" if change else "",
        f"{line['flops']:.2g}",
        f"{line['seconds']:.0f}",
    ]


def verdicts(results: dict[str, Any]) -> list[str]:
    """Return a sentence for each effect whose interval excludes zero, or one that says that there is none."""
    first = results["values"][0]
    sure = [
        f"{line['domain']}: {results['factor']}={line['value']} is {'better' if line['change'] > 0 else 'worse'} than "
        f"{first} in {line['metric']}, by {format_size(line)} ({line['low']:+.3g} to {line['high']:+.3g}, "
        f"{line['seeds']} seeds{', other size' if line['other_size'] else ''})"
        for line in results["effects"]
        if line.get("sure")
    ]
    return sure or ["no effect is sure: no Student's interval excludes zero; more seeds would narrow them"]
