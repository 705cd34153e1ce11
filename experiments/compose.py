"""A typed configuration from a command line, or one clear sentence about the error."""

import re
from contextlib import nullcontext
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from core.config import check_mixing
from experiments import schemas
from experiments.config import CompareConfig, PlanConfig, TransferConfig
from experiments.overrides import from_hydra, list_override, quote, to_hydra
from experiments.untrusted import load_domain, read_config, read_overrides

# Commands that start runs and take the settings of these on their own command line.
RUN_COMMANDS = {"compare": CompareConfig, "transfer": TransferConfig, "plan": PlanConfig}

# Groups whose choices belong to one domain: data=digits is for domain=vision.
DOMAIN_GROUPS = ("data", "model")


def compose(name: str, overrides: list[str]) -> DictConfig:
    """Compose `conf/<name>.yaml` with these overrides (key=value), as they were typed.

    Raises:
        ValueError: says what is wrong, what is possible, and the nearest known name.
    """
    if added := [
        override for override in overrides if override.startswith("+") and not override.lstrip("+").startswith("hydra")
    ]:
        raise ValueError(f"{added[0]}: a key cannot be added, only set; leave out the +")
    schemas.register()
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        hydra_overrides = to_hydra_overrides(name, overrides)
        try:
            config = hydra_compose(name, hydra_overrides)
            check_config(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain_error(error, name, hydra_overrides)) from error
    return config


def to_hydra_overrides(name: str, overrides: list[str], sweep: bool = False) -> list[str]:
    """Translate overrides to Hydra's grammar. Which settings are text depends on the groups, such as domain=rl."""
    if not any("=" in override for override in overrides):
        return overrides
    groups = _groups()
    group_overrides = [
        override
        for override in overrides
        if re.split("[@=]", override)[0] in groups or override.startswith("hydra.searchpath")
    ]
    try:
        config = hydra_compose(name, group_overrides)
    except (HydraException, OmegaConfBaseException):
        config = hydra_compose(name)  # a choice is wrong; composing with it raises
    return [to_hydra(override, config, sweep) for override in overrides]


def to_hydra_train_overrides(overrides: list[str], sweep: bool = False) -> list[str]:
    """Translate the overrides of `attend train` to Hydra's grammar."""
    schemas.register()
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        return to_hydra_overrides("config", overrides, sweep)


def with_sweep_folder(overrides: list[str]) -> list[str]:
    """Replace run=FOLDER by the folder of a sweep, which holds all its runs by number.

    Raises:
        ValueError: for several folders.
    """
    others = [override for override in overrides if not override.startswith("run=")]
    run_folders = [override.removeprefix("run=") for override in overrides if override.startswith("run=")]
    if not run_folders:
        return overrides
    if "," in run_folders[-1]:
        raise ValueError(
            f"run={run_folders[-1]}: a sweep has one folder, in which its runs are 0, 1, 2 …; hydra.sweep.subdir=… "
            "names them otherwise"
        )
    return [*others, f"hydra.sweep.dir={quote(run_folders[-1])}"]


def check_config(config: DictConfig) -> None:
    """Raise ValueError for what Hydra accepts: missing values, another domain's data or model."""
    for key in sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"{key} is needed: give {key}=…")
    for group in DOMAIN_GROUPS:
        if group in config and config[group] is not None and config[group].domain != config.domain.name:
            raise ValueError(
                f"that {group} is for domain={config[group].domain}, not for domain={config.domain.name}, "
                f"which takes {group}={'|'.join(choices(group, config.domain.name))}"
            )
    if "model" in config and config.model is not None:
        check_model(config)


def check_model(config: DictConfig) -> None:
    """Raise ValueError for a mixer that lacks what the domain or its position needs, or for LoRA without init."""
    model = load_domain(config.domain.package).model_config
    if config.model.get("lora_rank") is not None and config.init is None:
        raise ValueError(f"model.lora_rank={config.model.lora_rank} changes another run's weights: give init=FOLDER")
    check_mixing(config.model.mixer, config.position.kind, model.needs)


def choices(group: str, domain: str | None = None) -> list[str]:
    """Return the names in a configuration group; with a domain, those of that domain."""
    names = []
    for folder in _config_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            if domain is None or f"/schema/{domain}_{group}@" in path.read_text():
                names.append(path.stem)
    return names


def _config_folders() -> list[Path]:
    """Return conf and the folders that other packages add to Hydra's search path."""
    initialized = GlobalHydra.instance().is_initialized()  # in compose()
    with nullcontext() if initialized else initialize_config_module("conf", version_base="1.3"):
        search_path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    packages = [part.path[len("pkg://") :] for part in search_path if part.path and part.path.startswith("pkg://")]
    return [Path(import_module(name).__path__[0]) for name in packages if name != "hydra.conf"]


def explain_error(error: Exception, name: str, overrides: list[str]) -> str:
    """Explain a configuration error in one or two lines: what is wrong, what is possible, the nearest known name."""
    cause, text = error.__cause__, str(error)
    for override in overrides:
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as parse:
            return f"{override!r} is not of the form key=value ({str(parse).splitlines()[0]})"
    if several := re.search(r"Ambiguous value for argument '([^=]*)=(.*)'", text):
        key, values = several.groups()
        return (
            f"{key}={values} is several values, for a sweep: attend train -m {key}={values}; a list is written "
            f"{key}=[{values}]"
        )
    if recipe := re.search(r"In 'experiment/(\w+)': ConfigKeyError", text):
        return f"experiment={recipe[1]} is a recipe of another domain; leave out domain=… and what belongs to that"
    if choice := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, wrong = choice.groups()
        return f"{group}={wrong} is unknown{_nearest(wrong, choices(group))}; possible: {', '.join(choices(group))}"
    if groups := re.search(r"Could not override '(\w+)'\.\nDid you mean to override (?:one of )?([^?]+)\?", text):
        return f"{groups[1]}=… says not for what; possible: {', '.join(f'{name}=…' for name in groups[2].split(', '))}"
    if group := re.search(r"Could not override '([\w@/]+)'\. ?(?:No match|\n?Did you mean)", text):
        return f"{group[1]} is no group of choices; possible: {', '.join(_groups())}"
    if cause is not None and (unknown := re.search(r"Key '([^']*)' (?:is )?not in (?:'\w+'|struct)", str(cause))):
        key = getattr(cause, "full_key", None) or unknown[1]
        known = _known_keys(name, key, overrides)
        return f"{key} is no setting{_nearest(key, known)}; possible: {', '.join(known)}"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]} is needed: give {missing[1]}=…"
    if cause is not None and (override := re.search(r"Error merging override (.*)", text)):
        return f"{override[1]}: {str(cause).splitlines()[0]}"
    return " ".join(text.split())


def _groups() -> list[str]:
    return sorted(p.name for p in Path(conf.__file__).parent.iterdir() if p.is_dir() and any(p.glob("*.yaml")))


def _known_keys(name: str, key: str, overrides: list[str]) -> list[str]:
    """Return the known keys beside an unknown one, under the same choices."""
    node: Any = hydra_compose(name, [o for o in overrides if o.partition("=")[0] in _groups()])
    parents = key.split(".")[:-1]
    for parent in parents:
        node = node[parent]
    return [".".join([*parents, str(known)]) for known in node]


def _nearest(wrong: str, known: list[str]) -> str:
    near = get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def with_resume_overrides(overrides: list[str]) -> list[str]:
    """Put the overrides of an existing run folder first, so that `attend train run=FOLDER` resumes it."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    folder = Path(given.get("run", ""))
    if "run" not in given or not any((folder / "checkpoints").glob("*.ckpt")):
        return overrides
    before = {line.partition("=")[0]: line for line in map(from_hydra, read_overrides(folder))}
    if "domain" in given and before.get("domain", "").partition("=")[2] not in ("", given["domain"]):
        raise ValueError(f"{folder} is a run of {before['domain']}; give another run=… for a new run")
    return [line for key, line in before.items() if key not in given] + overrides


def with_init_overrides(overrides: list[str]) -> list[str]:
    """With init=FOLDER, put that run's model and position first, unless the command line chooses others."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    folder = Path(given.get("init", ""))
    if "init" not in given or not (folder / "config.yaml").is_file() or given.keys() & {"model", "experiment"}:
        return overrides
    before = read_config(folder)
    choice = [f"domain={given['domain']}"] if "domain" in given else []
    domain = compose("config", choice).domain
    if domain.name != before.domain.name:
        return overrides
    known = {field.name for field in fields(load_domain(domain.package).model_config)}
    inherited = {f"model.{key}": value for key, value in before.model.items() if key in known}
    if "position" not in given:
        inherited |= {f"position.{key}": value for key, value in before.position.items()}
    return [f"{key}={format_value(value)}" for key, value in inherited.items() if key not in given] + overrides


def nest_run_settings(command: str, overrides: list[str]) -> list[str]:
    """Move the overrides that concern the runs of `compare`, `transfer` or `plan` into its list `settings`."""
    if command not in RUN_COMMANDS:
        return overrides
    own = {field.name for field in fields(RUN_COMMANDS[command])}
    run_overrides = [
        override
        for override in overrides
        if not (override.startswith("hydra") or re.split(r"[.=]", override)[0] in own)
    ]
    return [override for override in overrides if override not in run_overrides] + (
        [list_override("settings", run_overrides)] if run_overrides else []
    )


def format_value(value: Any) -> str:
    """Format a value as Hydra reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
