"""Safe readers for run folders of unknown origin: plain values of bounded size, and no code.

Free of torch, because the command line uses it before a command runs.
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

MAX_CONFIG_BYTES = 2**18  # of a configuration
MAX_DEPTH = 20  # the parser's time grows with the square of the depth
MAX_SPEC_BYTES = 2**30  # of a spec.json, which may hold the text of an n-gram lookup
INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # \${ is text
REQUIRED_KEYS = ("domain", "data", "model", "position", "seed")


def read_config(folder: Path) -> DictConfig:
    """Read config.yaml, without interpolations: `${oc.env:…}` would read the environment.

    Raises:
        ValueError: if it is no such file.
    """
    config = _read_plain_yaml(folder / "config.yaml")
    if not isinstance(config, DictConfig) or any(name not in config for name in REQUIRED_KEYS):
        raise ValueError(f"{folder}/config.yaml is none of a run: it must say {', '.join(REQUIRED_KEYS)}")
    check_package(OmegaConf.select(config, "domain.package"))
    return config


def read_overrides(folder: Path) -> list[str]:
    """Read the overrides that a run was started with, without Hydra's own, which may name code to run.

    Raises:
        ValueError: if the file is missing or not a list of key=value.
    """
    lines = [str(line) for line in OmegaConf.to_container(_read_plain_yaml(folder / ".hydra" / "overrides.yaml")) or ()]
    if wrong := [line for line in lines if not re.match(r"\w[\w@/.]*=", line)]:
        raise ValueError(f"{folder}/.hydra/overrides.yaml holds {wrong[0]!r}, which is not of the form key=value")
    return [line for line in lines if not line.startswith("hydra")]


def read_spec(folder: Path) -> dict[str, Any]:
    """Read spec.json. Raises ValueError if it is no such file."""
    path = folder / "spec.json"
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise ValueError("it is too large")
        spec = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(spec, dict):
            raise ValueError("it holds no names")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return spec


def load_domain(package: str) -> Domain:
    """Import the record of a trusted domain package.

    Raises:
        ValueError: if the package is not trusted, or does not exist.
    """
    check_package(package)
    return find_domain(package)


def check_package(package: Any) -> None:
    """Allow only packages of `domains`, and those in $ATTEND_MODULES (comma-separated): importing a module runs it.

    Raises:
        ValueError: for any other package.
    """
    trusted = ("domains", *os.environ.get("ATTEND_MODULES", "").split(","))
    named = isinstance(package, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", package)
    if named and package.split(".")[0] in trusted:
        return
    raise ValueError(
        f"domain.package={package!r} is no domain of attend, such as domains.vision; if it is a package of yours, set "
        "ATTEND_MODULES to its name"
    )


def _read_plain_yaml(path: Path) -> Any:
    """Read a YAML file without aliases, which could expand to any size, and without interpolations."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"it is longer than {MAX_CONFIG_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            if isinstance(event, yaml.AliasEvent) or INTERPOLATION.search(str(getattr(event, "value", ""))):
                raise ValueError("an alias, or ${…}, stands for a value; write the value itself")
        return OmegaConf.load(StringIO(text))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
