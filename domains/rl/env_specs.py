"""Gymnasium's EnvSpec as plain JSON values, stored with recorded data.

An id is not enough: the same id with other arguments, another time limit or a wrapper is another environment. Files are
untrusted, so nothing that they name is imported: an environment is made from what is registered here.
"""

import json
import os
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

MAX_CHARS = 2**16  # characters of a specification
MAX_NUMBER = 10**6  # the largest number in it, which may be a size
# Wrappers that can be recreated, since their arguments define them.
RECREATED_WRAPPERS = {
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
# Wrappers that change no episode; some write files or open windows. They are left out.
PASSIVE_WRAPPERS = {
    "AddWhiteNoise",
    "HumanRendering",
    "ObstructView",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
}
IDENTITY_FIELDS = (
    "id",
    "kwargs",
    "max_episode_steps",
    "additional_wrappers",
)  # the fields that distinguish environments


def check_module(env_id: str) -> None:
    """Raise ValueError for an id like my_module:MyEnv-v0, which imports that module, unless $ATTEND_MODULES names it
    (comma separated)."""
    module, colon, _ = env_id.rpartition(":")
    if colon and module not in os.environ.get("ATTEND_MODULES", "").split(","):
        raise ValueError(f"{env_id} imports the module {module}; if you trust it, set ATTEND_MODULES={module}")


def unknown_env_error(env_id: str) -> ValueError:
    near = get_close_matches(env_id, list(gymnasium.registry), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; an environment id looks like CartPole-v1"
    return ValueError(f"Gymnasium knows no environment {env_id!r}{hint}")


def registered_spec(env_id: str) -> EnvSpec:
    """Return the specification registered under an id. Raise ValueError if there is none."""
    check_module(env_id)
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        return replace(gymnasium.spec(name), id=env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise unknown_env_error(env_id) from error


def spec_of(env: gymnasium.Env, env_id: str) -> EnvSpec:
    """Return the registered specification of an environment, by an id that may name a module."""
    assert env.spec is not None
    module, colon, _ = env_id.rpartition(":")
    return registered_spec(f"{module}{colon}{env.spec.id}")


def spec_to_dict(spec: EnvSpec) -> dict[str, Any]:
    """Return a specification as JSON values under the names of EnvSpec, without arguments that JSON cannot hold."""
    values = {name: getattr(spec, name) for name in ("id", "reward_threshold", "nondeterministic", "max_episode_steps")}
    values |= {"order_enforce": spec.order_enforce, "disable_env_checker": spec.disable_env_checker}
    wrappers = [
        {
            "name": w.name,
            "entry_point": w.entry_point,
            "kwargs": None if w.kwargs is None else _json_arguments(w.kwargs),
        }
        for w in spec.additional_wrappers
    ]
    return {
        **values,
        "entry_point": spec.entry_point if isinstance(spec.entry_point, str) else None,
        "kwargs": _json_arguments(spec.kwargs),
        "additional_wrappers": wrappers,
    }


def _json_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in arguments.items():
        try:
            found[name] = json.loads(json.dumps(value, default=lambda array: array.tolist()))
        except (TypeError, ValueError, AttributeError):  # such as a function: the registry has it
            continue
    return found


def spec_identity(env_id: str, values: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields of a specification that distinguish environments; of a plain id, the registered ones."""
    try:
        values = spec_to_dict(registered_spec(env_id) if values is None else spec_from_dict(values))
    except ValueError:  # it cannot be made here: compare the recorded values
        values = values or {}
    return {"id": env_id} | {name: values[name] for name in IDENTITY_FIELDS if name in values}


def format_identity(values: dict[str, Any]) -> str:
    """Return a `spec_identity` as text: the id, and the differences from the registered specification."""
    local = spec_identity(values["id"], None)
    changes = [
        f"{name}={_truncated(value)}"
        for name, value in values.items()
        if name in IDENTITY_FIELDS[1:] and local.get(name) != value
    ]
    return f"{values['id']} with {', '.join(changes)}" if changes else values["id"]


def format_env(spec: str | EnvSpec) -> str:
    """Return an environment as text: its id, and the differences from the registered specification."""
    if isinstance(spec, str):
        return spec
    changes = ", ".join(spec_differences(spec))
    return f"{spec.id} with {changes}" if changes else spec.id


def spec_differences(spec: EnvSpec) -> list[str]:
    """Return the differences of a specification from the one registered under its id."""
    registered = registered_spec(spec.id)
    local, recorded_kwargs = registered.kwargs, spec.kwargs
    found = [
        f"{name}={_truncated(recorded_kwargs[name])}"
        for name in recorded_kwargs
        if name not in local or local[name] != recorded_kwargs[name]
    ]
    if spec.max_episode_steps != registered.max_episode_steps:
        found.append(f"max_episode_steps={spec.max_episode_steps}")
    return found + [wrapper.name for wrapper in spec.additional_wrappers[len(registered.additional_wrappers) :]]


def spec_from_dict(values: Any) -> EnvSpec:
    """Return the specification that a file describes, built from the one registered here.

    Plain arguments, the time limit and Gymnasium's own wrappers (`RECREATED_WRAPPERS`) are taken from the file;
    `PASSIVE_WRAPPERS` are left out.

    Raises:
        ValueError: if that would be another environment; the message says why.
    """
    if not isinstance(values, dict) or not isinstance(values.get("id"), str) or len(str(values)) > MAX_CHARS:
        raise ValueError("its specification is none of Gymnasium's EnvSpec")
    registered = registered_spec(values["id"])
    local, kwargs = spec_to_dict(registered), values.get("kwargs", {})
    base_wrappers, recorded = local["additional_wrappers"], values.get("additional_wrappers", [])
    if not isinstance(kwargs, dict) or not isinstance(recorded, list):
        raise ValueError("its specification is none of Gymnasium's EnvSpec")
    entry, registered_entry = values.get("entry_point"), local["entry_point"]
    if entry is not None and registered_entry is not None and _entry_class(entry) != _entry_class(registered_entry):
        raise ValueError(
            f"it was recorded with the class {_truncated(entry)}, and {registered.id} is {registered_entry} here"
        )
    limit = values.get("max_episode_steps", registered.max_episode_steps)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"its max_episode_steps={_truncated(limit)} is no number of steps")
    if recorded[: len(base_wrappers)] != base_wrappers:
        raise ValueError(f"it was recorded with other wrappers than {registered.id} has here")
    kwargs = {
        name: value for name, value in kwargs.items() if name not in registered.kwargs or value != local["kwargs"][name]
    }
    if kwargs.get("render_mode") != "rgb_array":
        kwargs.pop("render_mode", None)  # "human" opens a window
    check_arguments(kwargs)
    rest = [wrapper for wrapper in map(_wrapper_from_dict, recorded[len(base_wrappers) :]) if wrapper]
    return replace(
        registered,
        kwargs=registered.kwargs | kwargs,
        max_episode_steps=limit,
        additional_wrappers=(*registered.additional_wrappers, *rest),
    )


def check_arguments(value: Any) -> None:
    """Raise ValueError for arguments that may name a file, or are too large to be sizes."""
    match value:
        case dict() | list():
            for part in [*value, *value.values()] if isinstance(value, dict) else value:
                check_arguments(part)
        case str() if "/" in value or "\\" in value:
            raise ValueError(f"its argument {_truncated(value)} may name a file")
        case int() | float() if MAX_NUMBER < abs(value) < float("inf"):
            raise ValueError(f"its argument {_truncated(value)} is larger than {MAX_NUMBER:,}")


def _wrapper_from_dict(values: Any) -> WrapperSpec | None:
    """Return a recorded wrapper; None for one of `PASSIVE_WRAPPERS`."""
    from_gymnasium = isinstance(values, dict) and str(values.get("entry_point")).startswith("gymnasium.wrappers.")
    name = values.get("name") if from_gymnasium else None
    if name in PASSIVE_WRAPPERS:
        return None
    if name not in RECREATED_WRAPPERS or not isinstance(values["kwargs"], dict):
        shown = values.get("name") if isinstance(values, dict) else values
        raise ValueError(
            f"its wrapper {_truncated(shown)} cannot be made from a file alone; possible: those of gymnasium.wrappers"
            " that plain arguments say all of, such as RescaleAction"
        )
    check_arguments(values["kwargs"])
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in values["kwargs"].items()}
    return WrapperSpec(name, f"{getattr(gymnasium.wrappers, name).__module__}:{name}", arguments)


def _entry_class(entry: Any) -> tuple[str, str]:
    """Return the package and the class of an entry point; versions may move a class between modules."""
    module, _, name = str(entry).rpartition(":")
    return module.split(".")[0], name


def _truncated(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:57]}…"
