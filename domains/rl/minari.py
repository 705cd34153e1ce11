"""Import and export of Minari data sets (Farama). Needs `pip install -e '.[minari]'`.

Shapes: N episodes · T steps of the longest · M steps in total
"""

import json
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete

from domains.data_warnings import warn_data, warn_left_out
from domains.rl.env_specs import registered_spec, spec_to_dict
from domains.rl.environments import make
from domains.rl.trajectories import Trajectories, check, pad


def minari() -> Any:
    """Import the package. Raise ValueError if it is not installed."""
    if find_spec("minari") is None or find_spec("h5py") is None:
        raise ValueError("Minari's data sets need a package that is not installed: pip install -e '.[minari]'")
    return import_module("minari")


def from_minari(name: str | None) -> tuple[str, Trajectories]:
    """Read the environment's id and the episodes of a local data set.

    The observation after the last action goes to `final_states`. Episodes without an end count as truncated.

    Raises:
        ValueError: without the package or the data set, or for unsupported observations or actions.
    """
    package = minari()
    if name is None:
        raise ValueError("data=minari needs data.name=…, such as mujoco/hopper/medium-v0 (minari list remote)")
    try:
        dataset = package.load_dataset(name)
    except (ValueError, OSError) as error:
        local = ", ".join(package.list_local_datasets()) or "none"
        raise ValueError(
            f"data.name={name} is not on this machine (minari download {name} fetches it); here: {local}"
        ) from error
    where, spec = f"data.name={name}", dataset.env_spec
    seen, taken = dataset.observation_space, dataset.action_space
    if not isinstance(seen, Box) or not isinstance(taken, Box | Discrete):
        raise ValueError(
            f"{where} has observations {seen} and actions {taken}; possible: Box, for actions Discrete too"
        )
    found = list(dataset.iterate_episodes())
    episodes = [e for e in found if len(e.rewards)]
    empty = [e.id for e in found if not len(e.rewards)]
    warn_left_out(len(found), {"without a step": empty}, where, "episodes")
    if not episodes:
        raise ValueError(f"{where} has no episode with a step in it")
    if unpaired := [e.id for e in episodes if len(e.observations) != len(e.rewards) + 1]:
        raise ValueError(
            f"{where}, episode {unpaired[0]}: it needs one observation more than rewards, as Minari has it"
        )
    lengths = np.array([len(e.rewards) for e in episodes])
    terminated = np.concatenate([e.terminations for e in episodes]).astype(bool)  # (M,)
    truncated = np.concatenate([e.truncations for e in episodes]).astype(bool)
    ends = np.cumsum(lengths) - 1
    stopped = np.flatnonzero(~(terminated | truncated)[ends])
    if stopped.size:
        first = episodes[stopped[0]].id
        count = f"{stopped.size} of {len(episodes)} episodes"
        warn_data(f"{count} in {where} just stop (first: {first}): they are taken as truncated")
    truncated[ends[stopped]] = True
    actions = np.concatenate([e.actions for e in episodes])
    arrays = {
        "observations": np.concatenate([e.observations[:-1] for e in episodes]),
        "actions": actions.astype(np.float64) if actions.ndim == 2 and actions.dtype.kind in "iu" else actions,
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "terminated": terminated,
        "truncated": truncated,
        "episode_length": lengths,
        "final_observations": np.stack([e.observations[-1] for e in episodes]),
        "env_id": np.array(spec.id if spec else "none"),
    }
    check(arrays, where)
    trajectories = pad(arrays)
    trajectories.env_spec = spec_to_dict(spec) if spec else None
    return str(arrays["env_id"]), trajectories


def to_minari(name: str, env_id: str | EnvSpec, trajectories: Trajectories, description: str) -> None:
    """Write episodes as a local Minari data set.

    Args:
        name: such as hopper/mix-v0.
        environment: the environment's id, or its specification.
        played: episodes whose final states are known.
        description: of the policies.
    Raises:
        ValueError: without the package, or for a name that is taken or invalid.
    """
    package = minari()
    assert trajectories.final_states is not None
    spec, buffers = registered_spec(env_id) if isinstance(env_id, str) else env_id, []
    made = make(spec)
    spaces = {"observation_space": made.observation_space, "action_space": made.action_space}
    kind, seen = made.action_space.dtype, made.observation_space.dtype
    made.close()
    kept = keepable(spec)
    if kept is None:
        warn_data(f"minari={name} keeps no environment: {spec.id} was registered with what JSON cannot hold")
    for n, length in enumerate(trajectories.lengths):
        last = np.arange(length) == length - 1
        buffers.append(
            package.data_collector.EpisodeBuffer(
                id=n,
                seed=None if trajectories.seeds is None else int(trajectories.seeds[n]),
                observations=np.concatenate(
                    [trajectories.states[n, :length], trajectories.final_states[n : n + 1]]
                ).astype(seen),
                actions=trajectories.actions[n, :length].astype(kind),
                rewards=trajectories.rewards[n, :length],
                terminations=last & trajectories.terminated[n],
                truncations=last & trajectories.truncated[n],
            )
        )
    text = {
        "algorithm_name": description,
        "description": description,
        "author": "attend",
        "author_email": "",
        "code_permalink": "",
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # Minari warns if there is no environment
            package.create_dataset_from_buffers(
                name, buffers, env=kept, eval_env=kept, jpeg_encoding=False, **spaces, **text
            )
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(f"minari={name}: {error}") from error


def keepable(spec: EnvSpec) -> EnvSpec | None:
    """Return a specification without values that JSON cannot hold, as Minari stores it; None if it has such values."""
    told = spec_to_dict(spec)
    pairs = [(told["kwargs"], spec.kwargs)]
    pairs += [
        (w["kwargs"], o.kwargs) for w, o in zip(told["additional_wrappers"], spec.additional_wrappers, strict=True)
    ]
    whole = told["entry_point"] and all(a is not None and b is not None and {*a} == {*b} for a, b in pairs)
    return EnvSpec.from_json(json.dumps(told)) if whole else None
