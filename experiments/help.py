"""`attend train --help`: the choices and settings, each with the comment of its dataclass field."""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from inspect import getdoc, getsource
from shutil import get_terminal_size
from textwrap import fill

from omegaconf import DictConfig, OmegaConf

from experiments.compose import DOMAIN_GROUPS, choices, compose, format_value
from experiments.config import TrainConfig

GROUPS = ("data", "model", "position", "optimizer", "trainer", "logger", "experiment")
KEY = 34  # columns for key=value
HEAD = """attend train domain=… [key=value …]: trains, and writes a run folder; attend train run=FOLDER goes on with one

Choices: a file in conf/ each, whose first lines say what it is; it sets several settings at once
{choices}

Settings of domain={domain}, each as it is if nothing is said
{settings}
Sweeps: attend train -m seed=0,1,2.  Hydra's own flags: attend train --hydra-help"""


def print_help(overrides: list[str]) -> None:
    """Print the help for a command line, whose choices decide which settings exist.

    Raises:
        ValueError: for an invalid command line.
    """
    config, width = compose("config", overrides), get_terminal_size((120, 24)).columns
    name = config.domain.name
    lists = {"domain": choices("domain")}
    lists |= {group: choices(group, name if group in DOMAIN_GROUPS else None) for group in GROUPS}
    choice_lines = [
        fill(f"  {f'{group}=':12}{' | '.join(names)}", width, subsequent_indent=" " * 14)
        for group, names in lists.items()
        if names
    ]
    lines = []
    for section, doc, settings in sections(config):
        lines.append(fill(f"{section}: {doc}" if doc else section, width))
        for key, value, comment in settings:
            start = f"  {key}={value}"
            gap = "  " if len(start) >= KEY else ""
            lines.append(fill(f"{start:{KEY}}{gap}{comment}".rstrip(), width, subsequent_indent=" " * KEY))
        lines.append("")
    print(HEAD.format(choices="\n".join(choice_lines), domain=name, settings="\n".join(lines)))


def sections(config: DictConfig) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Yield (name, description, [(key, value, comment) of its settings]) for each section of a configuration."""
    yield "run", "", list(_settings(config, TrainConfig, ""))
    for name in config:
        node = config[name]
        kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
        if name != "domain" and kind is not None:
            doc = " ".join((getdoc(kind) or "").split("\n\n")[0].split())
            yield str(name), doc, list(_settings(node, kind, f"{name}."))


def _settings(node: DictConfig, kind: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    choice_lines, plain = comments(kind), OmegaConf.to_container(node, enum_to_str=True)
    assert isinstance(plain, dict)
    for key in map(str, node):
        value = None if OmegaConf.is_interpolation(node, key) else node[key]
        if isinstance(value, DictConfig) and is_dataclass(inner := OmegaConf.get_type(value)):
            if prefix:  # the parts of the whole have sections of their own
                yield from _settings(value, inner, f"{prefix}{key}.")
        elif key != "domain":  # which says for whom a choice of data or model is
            possible = f"({' | '.join(type(value).__members__)})" if isinstance(value, Enum) else ""
            yield f"{prefix}{key}", format_value(plain[key]), f"{choice_lines.get(key, '')} {possible}".strip()


def comments(kind: type) -> dict[str, str]:
    """Return the comments on the fields of a dataclass and its bases, above or behind them in the source."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        above: list[str] = []
        for line in getsource(base).splitlines() if is_dataclass(base) else ():
            if alone := re.fullmatch(r"    # (.*)", line):
                above.append(alone[1])
            elif field := re.match(r"    (\w+): [^#]*(?:# (.*))?", line):
                found[field[1]] = " ".join([*above, field[2] or ""]).strip()
                above = []
    return found
