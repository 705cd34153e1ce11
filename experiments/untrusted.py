"""What is read of a run folder, which anyone may have written: plain values of a bounded size, and nothing that acts.

Free of torch, as the command line reads it before anything runs.
"""

import json
import os
import re
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from domains.domain import Domain, find_domain

LONGEST = 2**18  # bytes of a configuration
DEEPEST = 20  # beyond, the parser's time grows with the square
LARGEST = 2**30  # bytes of a spec.json, which may hold the text of n-gram lookup
INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # \${ is text
NEEDED = ("domain", "data", "model", "position", "seed")


def read_config(folder: Path) -> DictConfig:
    """config.yaml, in which nothing is left to interpolate: `${oc.env:…}` would read the environment.

    Raises:
        ValueError: if it is no such file.
    """
    config = _plain(folder / "config.yaml")
    if not isinstance(config, DictConfig) or any(name not in config for name in NEEDED):
        raise ValueError(f"{folder}/config.yaml is none of a run: it must say {', '.join(NEEDED)}")
    check_package(OmegaConf.select(config, "domain.package"))
    return config


def read_overrides(folder: Path) -> list[str]:
    """The command line that a run was started with, without what concerns Hydra itself, which may name code to run.

    Raises:
        ValueError: if there is none.
    """
    lines = [str(line) for line in OmegaConf.to_container(_plain(folder / ".hydra" / "overrides.yaml")) or ()]
    if wrong := [line for line in lines if not re.match(r"\w[\w@/.]*=", line)]:
        raise ValueError(f"{folder}/.hydra/overrides.yaml holds {wrong[0]!r}, which is not of the form key=value")
    return [line for line in lines if not line.startswith("hydra")]


def read_spec(folder: Path) -> dict[str, Any]:
    """spec.json. Raises ValueError if it is no such file."""
    path = folder / "spec.json"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        spec = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(spec, dict):
            raise ValueError("it holds no names")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return spec


def load_domain(package: str) -> Domain:
    """The record of a domain package that may be imported.

    Raises:
        ValueError: if it may not, or does not exist.
    """
    check_package(package)
    return find_domain(package)


def check_package(package: Any) -> None:
    """Importing a module runs it: only those of ours are, and packages named in $ATTEND_MODULES, with commas between.

    Raises:
        ValueError: for a domain package that is neither.
    """
    trusted = ("domains", *os.environ.get("ATTEND_MODULES", "").split(","))
    named = isinstance(package, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", package)
    if named and package.split(".")[0] in trusted:
        return
    raise ValueError(
        f"domain.package={package!r} is no domain of attend, such as domains.vision; if it is a package of yours, set "
        "ATTEND_MODULES to its name"
    )


def _plain(path: Path) -> Any:
    """A YAML file of values that stand there themselves: aliases could unfold to any size."""
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"it is longer than {LONGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent) or INTERPOLATION.search(str(getattr(event, "value", ""))):
                raise ValueError("an alias, or ${…}, stands for a value; write the value itself")
        return OmegaConf.load(StringIO(text))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
