"""Episodes as arrays, windows of them, and the file that keeps them (docs/data.md).

Shapes: N episodes · T steps of the longest · M steps of all together · B batch · K context · S state width
A width of an action
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domains.adapter import Batch
from domains.archives import check_room, read_npz
from domains.rl.precision import LARGEST, fitting, largest, say_what_is_coarse

STEPS = ("observations", "actions", "rewards", "terminated", "truncated")  # M long each, episode after episode
EPISODES = ("episode_length", "episode_seed", "final_observations")  # N long each; only the first must be there
MOST_ACTIONS = 2**20  # of numbered ones: each has an embedding
# One number each, of these kinds of NumPy's: real, whole or true and false.
SINGLE = {"rewards": "fiu", "terminated": "biu", "truncated": "biu", "episode_length": "iu", "episode_seed": "iu"}


@dataclass
class Trajectories:
    """Episodes, right-padded with zeros: only the first `lengths` steps of each are real.

    Attributes:
        states: (N, T, S), float32, or float64 where that is needed (`domains.rl.precision`); or images of bytes,
            (N, T, Y, X), with channels first or last. What each action was chosen in.
        actions: (N, T), int64, their numbers; or (N, T, A), float32, vectors in the units of the environment.
        rewards: (N, T), float32, for the action of the same step.
        lengths: (N,), steps played.
        terminated: (N,), bool: the episode ended by the task's own rules.
        truncated: (N,), bool: it was cut off by the time limit. If it did not end as well, its return is a lower bound.
        finals: (N, S), float32, or images: the states after the last actions, if they are known.
        seeds: (N,): `reset(seed)` and the actions make the same episode again, if they are known.
        env_spec: of the environment they were played in, as `domains.rl.specs.plain` has it, if it is known.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    finals: np.ndarray | None = None
    seeds: np.ndarray | None = None
    env_spec: dict[str, Any] | None = None

    @property
    def returns(self) -> np.ndarray:
        """(N,): the sum of an episode's rewards, undiscounted."""
        return self.rewards.sum(1, dtype=np.float64)

    @property
    def real(self) -> np.ndarray:
        """(N, T): which steps were played."""
        return np.arange(self.rewards.shape[1]) < self.lengths[:, None]

    def returns_to_go(self, totals: np.ndarray | None = None, *, delayed: bool = False) -> np.ndarray:
        """(N, T): what is left of `totals` (the returns if None) before each step, R_t = total - r_0 - … - r_{t-1}.

        If rewards are delayed, they all come at the end of an episode, and nothing is taken off before.
        """
        totals = self.returns if totals is None else totals
        before = 0 * self.rewards if delayed else np.cumsum(self.rewards, axis=1) - self.rewards
        return totals[:, None] - before


def windows(
    played: Trajectories,
    to_go: np.ndarray,
    episodes: np.ndarray,
    first: np.ndarray,
    context: int,
    offset: Sequence[float] | None = None,
) -> Batch:
    """What the model is shown of `episodes` (B,): `context` steps K from the step `first` (B,) on.

    Args:
        offset: (S,), taken off the states before they are rounded to float32 (`domains.rl.precision`).
    Returns:
        "returns" (B, K), the returns-to-go; "states" (B, K, S) or images; "actions" (B, K) or (B, K, A); "steps"
        (B, K), the time steps; "real" (B, K), False on the padding at the right.
    """
    at = first[:, None] + np.arange(context)  # (B, K)
    real = at < played.lengths[episodes, None]
    episodes, at = episodes[:, None], np.minimum(at, played.actions.shape[1] - 1)
    batch = {
        "returns": to_go[episodes, at].astype(np.float32),
        "states": shifted(played.states[episodes, at], offset),
        "actions": played.actions[episodes, at],
        "steps": at,
        "real": real,
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def shifted(states: np.ndarray, offset: Sequence[float] | None) -> np.ndarray:
    """States (*, S) without the offset, as float32; images stay bytes."""
    if states.dtype == np.uint8:
        return states
    return (states if offset is None else states - np.array(offset)).astype(np.float32, copy=False)


def flatten(played: Trajectories) -> dict[str, np.ndarray]:
    """The arrays of the file: every step of every episode, end to end."""
    real = played.real
    last = real & ~np.roll(real, -1, axis=1) if real.shape[1] > 1 else real
    last[:, -1] = real[:, -1]
    arrays = {
        "observations": played.states[real],  # (M, S)
        "actions": played.actions[real],
        "rewards": played.rewards[real],
        "terminated": (last & played.terminated[:, None])[real],
        "truncated": (last & played.truncated[:, None])[real],
        "episode_length": played.lengths.astype(np.int32),
    }
    known = {"episode_seed": played.seeds, "final_observations": played.finals}
    return arrays | {name: array for name, array in known.items() if array is not None}


def pad(arrays: dict[str, np.ndarray]) -> Trajectories:
    """Episodes from the arrays of the file."""
    lengths = arrays["episode_length"].astype(np.int64)
    real = np.arange(lengths.max()) < lengths[:, None]  # (N, T)
    states = fitting(arrays["observations"])
    ends, finals = np.cumsum(lengths) - 1, arrays.get("final_observations")

    def padded(flat: np.ndarray) -> np.ndarray:
        out = np.zeros((*real.shape, *flat.shape[1:]), flat.dtype)
        out[real] = flat
        return out

    return Trajectories(
        states=padded(states),
        actions=padded(arrays["actions"].astype(np.int64 if arrays["actions"].ndim == 1 else np.float32, copy=False)),
        rewards=padded(arrays["rewards"].astype(np.float32, copy=False)),
        lengths=lengths,
        terminated=arrays["terminated"][ends].astype(bool),
        truncated=arrays["truncated"][ends].astype(bool),
        finals=None if finals is None else finals.astype(states.dtype, copy=False),
        seeds=arrays.get("episode_seed"),
    )


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """All episodes of several sets of one kind and one environment, with what all of them know."""
    flat = [flatten(part) for part in parts]
    known = [name for name in flat[0] if all(name in arrays for arrays in flat)]
    if any(len({arrays[name].shape[1:] for arrays in flat}) > 1 for name in ("observations", "actions")):
        raise ValueError("these sets of episodes have states or actions of different shapes, and cannot be joined")
    joined = pad({name: np.concatenate([arrays[name] for arrays in flat]) for name in known})
    joined.env_spec = parts[0].env_spec
    return joined


def write(path: Path, environment: str, played: Trajectories, **more: Any) -> None:
    """One compressed .npz file, as docs/data.md describes it. `more` is kept with it and never read by training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = flatten(played) | {"episode_return": played.returns}
    if played.env_spec is not None:
        arrays["env_spec"] = np.array(json.dumps(played.env_spec))
    with open(path, "wb") as file:  # numpy would add .npz to a name
        np.savez_compressed(file, env_id=np.array(environment), **arrays, **more)


def read(path: str | Path) -> tuple[str, Trajectories]:
    """The environment's id and the episodes of such a file.

    Raises:
        ValueError: if it is not there, not whole, or contradicts itself.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; attend collect env=… writes such a file (docs/data.md)")
    try:
        arrays = read_npz(path, "it", (*STEPS, *EPISODES, "env_id", "env_spec"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; copy or collect it again") from error
    check(arrays, str(path))
    played = pad(arrays)
    if "env_spec" in arrays:
        try:
            played.env_spec = json.loads(text_of(arrays["env_spec"]))
            if not isinstance(played.env_spec, dict):
                raise ValueError("it has no names")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} has an env_spec that is no JSON of EnvSpec.to_json(): {error}") from error
    return text_of(arrays["env_id"]), played


def text_of(array: np.ndarray) -> str:
    """The text that an array holds. Raises ValueError if it is no single text."""
    value = array.item() if array.size == 1 else None
    if not isinstance(value, str | bytes):
        raise ValueError(f"{array.dtype} of shape {array.shape} is no text")
    return value if isinstance(value, str) else value.decode()


def check(arrays: dict[str, np.ndarray], path: str) -> None:
    """Raises ValueError for the first thing in the arrays of a file that cannot be."""
    needed = (*STEPS, "episode_length", "env_id")
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path} has no {', '.join(missing)}; it needs {', '.join(needed)} (docs/data.md)")
    strange = [
        name
        for name, kinds in SINGLE.items()
        if name in arrays and (arrays[name].ndim != 1 or arrays[name].dtype.kind not in kinds)
    ]
    if strange:
        raise ValueError(
            f"{path} has {shown(arrays, strange)}; possible: one number a step or episode, rewards real, terminated and"
            " truncated true or false, lengths and seeds whole (docs/data.md)"
        )
    seen, actions, lengths = arrays["observations"], arrays["actions"], arrays["episode_length"]
    seeable = (seen.ndim == 2 and seen.dtype.kind in "biuf") or (seen.ndim in (3, 4) and seen.dtype == np.uint8)
    if not seeable or (actions.ndim, actions.dtype.kind) not in {(1, "i"), (1, "u"), (2, "f")}:
        raise ValueError(
            f"{path} has {shown(arrays, ('observations', 'actions'))}; possible: observations (steps, width) or images"
            " of bytes, actions whole numbers (steps,) or real ones (steps, width)"
        )
    finals = arrays.get("final_observations", seen)
    if finals.shape[1:] != seen.shape[1:] or finals.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} has {shown(arrays, ('observations', 'final_observations'))}; those must be of one kind"
        )
    steps = {name: len(arrays[name]) for name in STEPS} | {"episode_length": int(lengths.sum())}
    if len(set(steps.values())) > 1 or not len(lengths) or lengths.min() < 1:
        counted = ", ".join(f"{name} {count}" for name, count in steps.items())
        raise ValueError(f"{path} is not whole: its steps are {counted}; each must be the same, and no episode empty")
    if any(len(arrays[name]) != len(lengths) for name in EPISODES if name in arrays):
        raise ValueError(f"{path} needs one of {', '.join(EPISODES)} for each of its {len(lengths)} episodes")
    widest = max(arrays[name][:1].nbytes for name in STEPS)
    check_room(len(lengths) * int(lengths.max()) * widest, f"{path}, with every episode as long as its longest one,")
    if actions.ndim == 1 and not 0 <= actions.min() <= actions.max() < MOST_ACTIONS:
        wrong = actions.min() if actions.min() < 0 else actions.max()
        raise ValueError(f"{path} has the action {wrong}; actions are numbered from 0, to {MOST_ACTIONS:,} at most")
    for name in ("observations", "rewards", "actions"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path} has {name} that are not finite; leave those episodes out")
        if (most := largest(arrays[name])) > LARGEST:
            raise ValueError(f"{path} has {name} of {most:.3g}, beyond what float32 calculates with; rescale them")
    say_what_is_coarse("rewards", arrays["rewards"], path)
    for name in ("terminated", "truncated"):
        if arrays[name].dtype != bool and not np.isin(arrays[name], (0, 1)).all():
            raise ValueError(f"{path} has {name} that are neither 0 nor 1")
    try:
        text_of(arrays["env_id"])
    except ValueError as error:
        raise ValueError(f"{path} has an env_id that is no text ({error}), such as CartPole-v1, or none") from error
    over, ends = arrays["terminated"].astype(bool) | arrays["truncated"].astype(bool), np.cumsum(lengths) - 1
    if not over[ends].all() or over.sum() != len(ends):
        raise ValueError(
            f"{path}: the last step of each episode, and no other, must be terminated or truncated; an episode that was"
            " merely cut off is truncated"
        )


def shown(arrays: dict[str, np.ndarray], names: Iterable[str]) -> str:
    """What some arrays are, for messages."""
    return ", ".join(f"{name} {arrays[name].shape} of {arrays[name].dtype}" for name in names)
