"""The whole specification of an environment, Gymnasium's EnvSpec, as plain values that are kept with what was recorded.

An id is not all: the same id with other arguments, another time limit or a wrapper is another environment. Since anyone
may have written such values, nothing that they name is imported: an environment is made of what is registered here.
"""

import json
import os
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

LONGEST = 2**16  # characters of a specification
LARGEST = 10**6  # of whole numbers in it, which may be sizes
# Wrappers that a specification may ask for: what they do is all in their arguments.
REMADE = {
    "AddRenderObservation",
    "AtariPreprocessing",
    "ClipAction",
    "ClipReward",
    "DelayObservation",
    "DiscretizeAction",
    "DiscretizeObservation",
    "FilterObservation",
    "FlattenObservation",
    "FrameStackObservation",
    "GrayscaleObservation",
    "MaxAndSkipObservation",
    "RepeatAction",
    "RescaleAction",
    "RescaleObservation",
    "ReshapeObservation",
    "ResizeObservation",
    "StickyAction",
    "TimeAwareObservation",
}
# Those that only look on, some of which write files or open windows: an episode is the same without them.
WATCHING = {
    "AddWhiteNoise",
    "HumanRendering",
    "ObstructView",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
}
OWN = ("id", "kwargs", "max_episode_steps", "additional_wrappers")  # what makes one environment another


def check_module(env_id: str) -> None:
    """Raises ValueError for an id like my_module:MyEnv-v0, which imports that module and so runs it, unless the module
    is one of those that $ATTEND_MODULES names, with commas between them."""
    module, colon, _ = env_id.rpartition(":")
    if colon and module not in os.environ.get("ATTEND_MODULES", "").split(","):
        raise ValueError(f"{env_id} imports the module {module}; if you trust it, set ATTEND_MODULES={module}")


def unknown(env_id: str) -> ValueError:
    near = get_close_matches(env_id, list(gymnasium.registry), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; an environment id looks like CartPole-v1"
    return ValueError(f"Gymnasium knows no environment {env_id!r}{hint}")


def registered(env_id: str) -> EnvSpec:
    """The specification that is registered here. Raises ValueError if there is none."""
    check_module(env_id)
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        return replace(gymnasium.spec(name), id=env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise unknown(env_id) from error


def spec_of(env: gymnasium.Env, env_id: str) -> EnvSpec:
    """Return the registered specification of an environment, by an id that may name a module."""
    assert env.spec is not None
    module, colon, _ = env_id.rpartition(":")
    return registered(f"{module}{colon}{env.spec.id}")


def plain(spec: EnvSpec) -> dict[str, Any]:
    """A specification as values of JSON, under the names of EnvSpec; arguments that are none are left out."""
    told = {name: getattr(spec, name) for name in ("id", "reward_threshold", "nondeterministic", "max_episode_steps")}
    told |= {"order_enforce": spec.order_enforce, "disable_env_checker": spec.disable_env_checker}
    wrappers = [
        {"name": w.name, "entry_point": w.entry_point, "kwargs": None if w.kwargs is None else _plain(w.kwargs)}
        for w in spec.additional_wrappers
    ]
    return {
        **told,
        "entry_point": spec.entry_point if isinstance(spec.entry_point, str) else None,
        "kwargs": _plain(spec.kwargs),
        "additional_wrappers": wrappers,
    }


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in arguments.items():
        try:
            found[name] = json.loads(json.dumps(value, default=lambda array: array.tolist()))
        except (TypeError, ValueError, AttributeError):  # such as a function: it comes from the registry again
            continue
    return found


def identity(env_id: str, told: dict[str, Any] | None) -> dict[str, Any]:
    """Return the parts of a specification that make one environment another; of an id, those registered."""
    try:
        told = plain(registered(env_id) if told is None else trusted(told))
    except ValueError:  # it cannot be made here, and is compared as it is written
        told = told or {}
    return {"id": env_id} | {name: told[name] for name in OWN if name in told}


def worded(told: dict[str, Any]) -> str:
    """An `identity` in words: the id, and what differs from what is registered here."""
    here = identity(told["id"], None)
    changes = [f"{name}={_short(value)}" for name, value in told.items() if name in OWN[1:] and here.get(name) != value]
    return f"{told['id']} with {', '.join(changes)}" if changes else told["id"]


def named(spec: str | EnvSpec) -> str:
    """An environment in words: its id, and in what it differs from what is registered under that."""
    if isinstance(spec, str):
        return spec
    changes = ", ".join(changed(spec))
    return f"{spec.id} with {changes}" if changes else spec.id


def changed(spec: EnvSpec) -> list[str]:
    """In what a specification differs from what is registered under its id."""
    own = registered(spec.id)
    here, there = own.kwargs, spec.kwargs
    found = [f"{name}={_short(there[name])}" for name in there if name not in here or here[name] != there[name]]
    if spec.max_episode_steps != own.max_episode_steps:
        found.append(f"max_episode_steps={spec.max_episode_steps}")
    return found + [wrapper.name for wrapper in spec.additional_wrappers[len(own.additional_wrappers) :]]


def trusted(told: Any) -> EnvSpec:
    """The environment that some file specifies, made of what is registered here.

    Taken from the file are plain arguments, the time limit, and wrappers of Gymnasium's own (`REMADE`); those that only
    look on are left out.

    Raises:
        ValueError: if that would be another environment; it says why.
    """
    if not isinstance(told, dict) or not isinstance(told.get("id"), str) or len(str(told)) > LONGEST:
        raise ValueError("its specification is none of Gymnasium's EnvSpec")
    own = registered(told["id"])
    here, kwargs = plain(own), told.get("kwargs", {})
    first, theirs = here["additional_wrappers"], told.get("additional_wrappers", [])
    if not isinstance(kwargs, dict) or not isinstance(theirs, list):
        raise ValueError("its specification is none of Gymnasium's EnvSpec")
    entry, known = told.get("entry_point"), here["entry_point"]
    if entry is not None and known is not None and _class(entry) != _class(known):
        raise ValueError(f"it was recorded with the class {_short(entry)}, and {own.id} is {known} here")
    limit = told.get("max_episode_steps", own.max_episode_steps)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"its max_episode_steps={_short(limit)} is no number of steps")
    if theirs[: len(first)] != first:
        raise ValueError(f"it was recorded with other wrappers than {own.id} has here")
    kwargs = {name: value for name, value in kwargs.items() if name not in own.kwargs or value != here["kwargs"][name]}
    if kwargs.get("render_mode") != "rgb_array":
        kwargs.pop("render_mode", None)  # "human" opens a window
    check_plain(kwargs)
    rest = [wrapper for wrapper in map(_wrapper, theirs[len(first) :]) if wrapper]
    return replace(
        own,
        kwargs=own.kwargs | kwargs,
        max_episode_steps=limit,
        additional_wrappers=(*own.additional_wrappers, *rest),
    )


def check_plain(value: Any) -> None:
    """Raises ValueError for arguments that name a file, or are too large to be sizes."""
    match value:
        case dict() | list():
            for part in [*value, *value.values()] if isinstance(value, dict) else value:
                check_plain(part)
        case str() if "/" in value or "\\" in value:
            raise ValueError(f"its argument {_short(value)} may name a file")
        case int() | float() if LARGEST < abs(value) < float("inf"):
            raise ValueError(f"its argument {_short(value)} is larger than {LARGEST:,}")


def _wrapper(told: Any) -> WrapperSpec | None:
    """None for one that only looks on."""
    known = isinstance(told, dict) and str(told.get("entry_point")).startswith("gymnasium.wrappers.")
    name = told.get("name") if known else None
    if name in WATCHING:
        return None
    if name not in REMADE or not isinstance(told["kwargs"], dict):
        shown = told.get("name") if isinstance(told, dict) else told
        raise ValueError(
            f"its wrapper {_short(shown)} cannot be made from a file alone; possible: those of gymnasium.wrappers that"
            " plain arguments say all of, such as RescaleAction"
        )
    check_plain(told["kwargs"])
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in told["kwargs"].items()}
    return WrapperSpec(name, f"{getattr(gymnasium.wrappers, name).__module__}:{name}", arguments)


def _class(entry: Any) -> tuple[str, str]:
    """Package and class of an entry point; a version may move a class between its modules."""
    module, _, name = str(entry).rpartition(":")
    return module.split(".")[0], name


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:57]}…"
