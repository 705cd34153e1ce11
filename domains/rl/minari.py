"""Minari's data sets (Farama), in and out. Needs `pip install -e '.[minari]'`.

Shapes: N episodes · T steps of the longest · M steps of all together
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from domains.rl.trajectories import Trajectories, check, pad


def minari() -> Any:
    """The package. Raises ValueError if it is not installed."""
    if find_spec("minari") is None or find_spec("h5py") is None:
        raise ValueError("Minari's data sets need a package that is not installed: pip install -e '.[minari]'")
    return import_module("minari")


def from_minari(name: str | None) -> tuple[str, Trajectories]:
    """The environment's id and the episodes of a data set on this machine.

    The observation after the last action, which Minari keeps with the others, goes to `finals`. Episodes that just stop
    count as truncated.

    Raises:
        ValueError: without the package or the data set, or for observations and actions of a kind that cannot be.
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
    episodes = list(dataset.iterate_episodes())
    if any(not isinstance(part, np.ndarray) for e in episodes for part in (e.observations, e.actions)):
        raise ValueError(f"data.name={name} has observations or actions in several parts; possible: plain arrays")
    lengths = np.array([len(e.rewards) for e in episodes])
    terminated = np.concatenate([e.terminations for e in episodes]).astype(bool)  # (M,)
    truncated = np.concatenate([e.truncations for e in episodes]).astype(bool)
    ends = np.cumsum(lengths) - 1
    truncated[ends] |= ~terminated[ends]
    arrays = {
        "observations": np.concatenate([e.observations[:-1] for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "terminated": terminated,
        "truncated": truncated,
        "episode_length": lengths,
        "final_observations": np.stack([e.observations[-1] for e in episodes]),
        "env_id": np.array(dataset.env_spec.id if dataset.env_spec else "none"),
    }
    check(arrays, f"data.name={name}")
    return str(arrays["env_id"]), pad(arrays)


def to_minari(name: str, environment: str, played: Trajectories, about: str) -> None:
    """Keep episodes as a data set of Minari on this machine.

    Args:
        name: such as hopper/mix-v0.
        environment: the environment's id.
        played: episodes whose final states are known.
        about: who played.
    Raises:
        ValueError: without the package, or for a name that is taken or no name.
    """
    package = minari()
    assert played.finals is not None
    buffers = []
    for n, length in enumerate(played.lengths):
        last = np.arange(length) == length - 1
        buffers.append(
            package.data_collector.EpisodeBuffer(
                id=n,
                seed=None if played.seeds is None else int(played.seeds[n]),
                observations=np.concatenate([played.states[n, :length], played.finals[n : n + 1]]),
                actions=played.actions[n, :length],
                rewards=played.rewards[n, :length],
                terminations=last & played.terminated[n],
                truncations=last & played.truncated[n],
            )
        )
    text = {"algorithm_name": about, "description": about, "author": "attend", "author_email": "", "code_permalink": ""}
    try:
        package.create_dataset_from_buffers(name, buffers, env=environment, eval_env=environment, **text)
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(f"minari={name}: {error}") from error
