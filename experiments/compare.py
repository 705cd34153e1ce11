"""`attend compare`: one setting, several values of it, the effect in every domain, with intervals and costs."""

from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from experiments.comparison import size, summarise
from experiments.compose import choices, compose
from experiments.config import Equal
from experiments.environment import environment
from experiments.report.comparison import finite, write_comparison
from experiments.runs import write_json
from experiments.sweep import digest, found, launch, write_rows
from experiments.terminal import terminal

GROUPS = ("position", "optimizer", "data", "model")  # that a factor can be
SECTIONS = ("model", "optimizer", "data", "trainer", "position")  # of settings, where a plain name is looked for
ALSO = {"width": "model.dim"}
WIDE = 110  # columns of a terminal that the whole table needs


def run(config: DictConfig) -> None:
    """Plans, trains what is not there yet, and writes results.csv, results.json and report.html."""
    output, console = Path(config.output), terminal()
    plan = make_plan(config, output, console)
    console.print(f"{len(plan['jobs'])} runs in {output}")
    launch(output, plan["jobs"])
    results = collect(output, plan)
    write_json(output / "results.json", finite(results))
    write_rows(output / "results.csv", results["rows"])
    write_comparison(output / "report.html", results)
    show(results, console)
    console.print(f"wrote {output}/results.csv, {output}/results.json and {output}/report.html")


def make_plan(config: DictConfig, output: Path, console: Console) -> dict[str, Any]:
    """Which runs there are to be: every domain, value and seed, but for what a domain cannot take.

    Raises:
        ValueError: for a factor, value or setting that is possible in no domain.
    """
    values = [str(value) for value in config["values"]]  # .values is a method of every mapping
    if not 1 < len(set(values)) == len(values):
        raise ValueError(f"values=[{', '.join(values)}]: a comparison needs two at least, each once")
    if config.seeds < 1 or config.scale <= 0:
        raise ValueError(f"seeds={config.seeds} must be at least 1, and scale={config.scale} positive")
    known = choices("domain")
    for domain in config.domains:
        if domain not in known:
            raise ValueError(f"domains={list(config.domains)}: {domain} is unknown; possible: {', '.join(known)}")
    jobs, cannot = [], []
    for domain, value in product(config.domains, values):
        try:
            plain = [f"domain={domain}", *config.settings]
            key = setting(config.factor, compose("config", plain))
            chosen = compose("config", [*plain, f"{key}={value}"])
        except ValueError as error:
            cannot.append({"domain": domain, "value": value, "reason": " ".join(str(error).split())})
            continue
        steps = max(1, round(config.scale * chosen.trainer.max_steps))
        for seed in range(config.seeds):
            words = [*plain, f"{key}={value}", f"seed={seed}", "logger=csv", "trainer.devices=1"]
            jobs.append({"domain": domain, "value": value, "seed": seed, "overrides": words, "steps": steps})
    for value in values:
        if all(job["value"] != value for job in jobs):
            raise ValueError(next(row["reason"] for row in cannot if row["value"] == value))
    if config.equal is not Equal.steps:
        from experiments.budget import balance

        balance(jobs, values[0], config.equal, output / "budget.json", console)
    for job in jobs:
        job["overrides"] += [f"trainer.max_steps={job['steps']}", f"trainer.val_check_interval={job['steps']}"]
        job["key"] = digest(compose("config", job["overrides"]))
    return {
        "factor": config.factor,
        "values": values,
        "domains": list(config.domains),
        "settings": list(config.settings),
        "seeds": config.seeds,
        "equal": config.equal.value,
        "scale": config.scale,
        "jobs": jobs,
        "cannot": cannot,
    }


def setting(factor: str, config: DictConfig) -> str:
    """A factor by the full name of its setting: mixer is model.mixer.

    Raises:
        ValueError: if no setting of that domain has this name.
    """
    factor = ALSO.get(factor, factor)
    if factor in GROUPS or "." in factor:
        return factor
    for section in SECTIONS:
        if factor in config[section]:
            return f"{section}.{factor}"
    known = [str(name) for section in SECTIONS for name in config[section]]
    near = get_close_matches(factor, known, n=1)
    raise ValueError(
        f"factor={factor} is no setting of domain={config.domain.name}{f'; did you mean {near[0]}?' if near else ''}; "
        f"possible: {', '.join([*GROUPS, *ALSO, *known])}, or a full name such as optimizer.lr"
    )


def collect(output: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """All that is known: a row for each run, and the effects."""
    rows = found(output, plan["jobs"])
    results = {
        **{name: value for name, value in plan.items() if name != "jobs"},
        "effects": summarise(rows, plan["values"], plan["domains"]),
        "rows": rows,
        **environment(),
    }
    return results | {"verdicts": verdicts(results)}


def show(results: dict[str, Any], console: Console) -> None:
    """The effects, a table for each domain, and what can be said for sure. A narrow terminal has no room for costs."""
    wide = console.width >= WIDE
    more = ("of deviation", "FLOPs", "seconds") if wide else ()
    for domain in results["domains"]:
        lines = [line for line in results["effects"] if line["domain"] == domain and line["seeds"]]
        if not lines:
            continue
        better = "lower" if lines[0]["lower_is_better"] else "higher"
        console.print(f"{domain}: {lines[0]['metric']}, {better} is better")
        table = Table(results["factor"], "score", "change", "95 %", *more)
        for line in lines:
            table.add_row(*cells(line)[: None if wide else 4])
        console.print(table)
    for row in results["cannot"]:
        console.print(f"  {row['domain']} {row['value']}: not possible: {row['reason']}")
    for row in results["rows"]:
        if "error" in row:
            console.print(f"  {row['domain']} {row['value']} seed {row['seed']} failed: {row['error']}")
    for sentence in results["verdicts"]:
        console.print(sentence)


def cells(line: dict[str, Any]) -> list[str]:
    """A row of the table."""
    change = "change" in line
    return [
        line["value"] + (" (other size)" if line.get("other_size") else ""),
        f"{line['mean']:.4g} ± {line['deviation']:.2g}",
        f"{'+' if line['change'] >= 0 else '-'}{size(line)}" if change else "",
        f"{line['low']:+.3g} … {line['high']:+.3g}" if change else "",
        f"{line['deviations']:+.1f}" if change else "",
        f"{line['flops']:.2g}",
        f"{line['seconds']:.0f}",
    ]


def verdicts(results: dict[str, Any]) -> list[str]:
    """A sentence for each effect whose interval excludes zero; one that says so if there is none."""
    first = results["values"][0]
    found = [
        f"{line['domain']}: {results['factor']}={line['value']} is {'better' if line['change'] > 0 else 'worse'} than "
        f"{first} in {line['metric']}, by {size(line)} ({line['low']:+.3g} to {line['high']:+.3g}, "
        f"{line['seeds']} seeds{', other size' if line['other_size'] else ''})"
        for line in results["effects"]
        if line.get("sure")
    ]
    return found or ["no effect is sure: no Student's interval excludes zero; more seeds would narrow them"]
