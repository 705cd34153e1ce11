"""From a command line to a typed configuration, or to one clear sentence about what is wrong with it."""

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
from experiments.overrides import as_typed, from_hydra, quote, to_hydra
from experiments.untrusted import load_domain, read_config, read_overrides

# Commands about runs, whose command line holds the settings of these as well.
OF_RUNS = {"compare": CompareConfig, "transfer": TransferConfig, "plan": PlanConfig}

# Groups whose choices belong to one domain: data=digits is for domain=vision.
DOMAIN_GROUPS = ("data", "model")


def compose(name: str, words: list[str]) -> DictConfig:
    """The configuration `conf/<name>.yaml` with these settings (key=value), as they were typed.

    Raises:
        ValueError: what is wrong, what is possible, and the nearest known name.
    """
    if added := [word for word in words if word.startswith("+") and not word.lstrip("+").startswith("hydra")]:
        raise ValueError(f"{added[0]}: a key cannot be added, only set; leave out the +")
    schemas.register()
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        overrides = in_hydra(name, words)
        try:
            config = hydra_compose(name, overrides)
            check(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, name, overrides)) from error
    return config


def in_hydra(name: str, words: list[str], sweep: bool = False) -> list[str]:
    """The words in Hydra's grammar. Which settings are text depends on the choices among them, such as domain=rl."""
    if not any("=" in word for word in words):
        return words
    groups = _groups()
    choosing = [word for word in words if re.split("[@=]", word)[0] in groups or word.startswith("hydra.searchpath")]
    try:
        config = hydra_compose(name, choosing)
    except (HydraException, OmegaConfBaseException):
        config = hydra_compose(name)  # a choice is wrong; whoever composes with it says so
    return [to_hydra(word, config, sweep) for word in words]


def train_words(words: list[str], sweep: bool = False) -> list[str]:
    """The words of `attend train` in Hydra's grammar."""
    schemas.register()
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        return in_hydra("config", words, sweep)


def sweep_folder(words: list[str]) -> list[str]:
    """The words of a sweep, with run=FOLDER as what it means there: the folder of all its runs, which are numbered.

    Raises:
        ValueError: if it is several folders.
    """
    others = [word for word in words if not word.startswith("run=")]
    folders = [word.removeprefix("run=") for word in words if word.startswith("run=")]
    if not folders:
        return words
    if "," in folders[-1]:
        raise ValueError(
            f"run={folders[-1]}: a sweep has one folder, in which its runs are 0, 1, 2 …; hydra.sweep.subdir=… names "
            "them otherwise"
        )
    return [*others, f"hydra.sweep.dir={quote(folders[-1])}"]


def check(config: DictConfig) -> None:
    """Raises ValueError for what Hydra lets pass: missing values, another domain's data or model."""
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
    """Raises ValueError for a mixer that cannot do what the domain or its position needs, or a change of nothing."""
    model = load_domain(config.domain.package).model_config
    if config.model.get("lora_rank") is not None and config.init is None:
        raise ValueError(f"model.lora_rank={config.model.lora_rank} changes another run's weights: give init=FOLDER")
    check_mixing(config.model.mixer, config.position.kind, model.needs)


def choices(group: str, domain: str | None = None) -> list[str]:
    """The names in a configuration group; with a domain, those that are meant for it."""
    names = []
    for folder in _folders():
        for path in sorted((folder / group).glob("*.yaml")):
            if domain is None or f"/schema/{domain}_{group}@" in path.read_text():
                names.append(path.stem)
    return names


def _folders() -> list[Path]:
    """conf, and what packages of others add to Hydra's search path."""
    begun = GlobalHydra.instance().is_initialized()  # in compose()
    with nullcontext() if begun else initialize_config_module("conf", version_base="1.3"):
        parts = GlobalHydra.instance().config_loader().get_search_path().get_path()
    packages = [part.path[len("pkg://") :] for part in parts if part.path and part.path.startswith("pkg://")]
    return [Path(import_module(name).__path__[0]) for name in packages if name != "hydra.conf"]


def explain(error: Exception, name: str, overrides: list[str]) -> str:
    """One or two lines for a configuration error: what is wrong, what is possible, the nearest known name."""
    cause, text = error.__cause__, str(error)
    for word in overrides:
        try:
            OverridesParser.create().parse_override(word)
        except HydraException as parse:
            return f"{word!r} is not of the form key=value ({str(parse).splitlines()[0]})"
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
    if parts := re.search(r"Could not override '(\w+)'\.\nDid you mean to override (?:one of )?([^?]+)\?", text):
        return f"{parts[1]}=… says not for what; possible: {', '.join(f'{part}=…' for part in parts[2].split(', '))}"
    if group := re.search(r"Could not override '([\w@/]+)'\. ?(?:No match|\n?Did you mean)", text):
        return f"{group[1]} is no group of choices; possible: {', '.join(_groups())}"
    if cause is not None and (unknown := re.search(r"Key '([^']*)' (?:is )?not in (?:'\w+'|struct)", str(cause))):
        key = getattr(cause, "full_key", None) or unknown[1]
        known = _siblings(name, key, overrides)
        return f"{key} is no setting{_nearest(key, known)}; possible: {', '.join(known)}"
    if missing := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{missing[1]} is needed: give {missing[1]}=…"
    if cause is not None and (override := re.search(r"Error merging override (.*)", text)):
        return f"{override[1]}: {str(cause).splitlines()[0]}"
    return " ".join(text.split())


def _groups() -> list[str]:
    return sorted(p.name for p in Path(conf.__file__).parent.iterdir() if p.is_dir() and any(p.glob("*.yaml")))


def _siblings(name: str, key: str, overrides: list[str]) -> list[str]:
    """The known keys beside an unknown one, under the same choices."""
    node: Any = hydra_compose(name, [o for o in overrides if o.partition("=")[0] in _groups()])
    parents = key.split(".")[:-1]
    for parent in parents:
        node = node[parent]
    return [".".join([*parents, str(known)]) for known in node]


def _nearest(wrong: str, known: list[str]) -> str:
    near = get_close_matches(wrong, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def resumed(overrides: list[str]) -> list[str]:
    """The overrides that a run folder was made with, then these: `attend train run=FOLDER` needs no more to go on."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    folder = Path(given.get("run", ""))
    if "run" not in given or not any((folder / "checkpoints").glob("*.ckpt")):
        return overrides
    before = {line.partition("=")[0]: line for line in map(from_hydra, read_overrides(folder))}
    if "domain" in given and before.get("domain", "").partition("=")[2] not in ("", given["domain"]):
        raise ValueError(f"{folder} is a run of {before['domain']}; give another run=… for a new run")
    return [line for key, line in before.items() if key not in given] + overrides


def begun(overrides: list[str]) -> list[str]:
    """With init=FOLDER, the model and the position of that run first, unless the command line chooses others."""
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
    taken = {f"model.{key}": value for key, value in before.model.items() if key in known}
    if "position" not in given:
        taken |= {f"position.{key}": value for key, value in before.position.items()}
    return [f"{key}={written(value)}" for key, value in taken.items() if key not in given] + overrides


def gathered(command: str, overrides: list[str]) -> list[str]:
    """The words of a command about runs, with all that are settings of these as one list of them."""
    if command not in OF_RUNS:
        return overrides
    own = {field.name for field in fields(OF_RUNS[command])}
    theirs = [word for word in overrides if not (word.startswith("hydra") or re.split(r"[.=]", word)[0] in own)]
    return [word for word in overrides if word not in theirs] + ([as_typed("settings", theirs)] if theirs else [])


def written(value: Any) -> str:
    """A value as Hydra reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
