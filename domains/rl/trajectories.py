"""Episodes as arrays, windows of them, and their file format (docs/data.md).

Shapes: N episodes · T steps of the longest · M steps in total · B batch · K context · S state width
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
from domains.rl.float32 import MAX_MAGNITUDE, max_magnitude, to_smallest_float, warn_coarse

STEP_ARRAYS = ("observations", "actions", "rewards", "terminated", "truncated")  # (M, …) each, episode after episode
EPISODE_ARRAYS = ("episode_length", "episode_seed", "final_observations")  # (N, …) each; only the first is required
MAX_ACTIONS = 2**20  # discrete actions: each has an embedding
# One number each, with these NumPy dtype kinds: float, integer or boolean.
SCALAR_KINDS = {"rewards": "fiu", "terminated": "biu", "truncated": "biu", "episode_length": "iu", "episode_seed": "iu"}


@dataclass
class Trajectories:
    """Episodes, right-padded with zeros after `lengths` steps.

    Attributes:
        states: (N, T, S), float32, or float64 where that is needed (`domains.rl.float32`); or images of bytes,
            (N, T, Y, X), with channels first or last. The state before each action.
        actions: (N, T), int64, discrete; or (N, T, A), float32, vectors in the units of the environment.
        rewards: (N, T), float32, after the action of the same step.
        lengths: (N,), steps of each episode.
        terminated: (N,), bool: the episode reached a terminal state.
        truncated: (N,), bool: the time limit cut it off; unless it also terminated, its return is a lower bound.
        final_states: (N, S), or images: the states after the last actions, if known.
        seeds: (N,): `reset(seed)` and the actions reproduce the episode, if known.
        env_spec: the specification of the environment (`domains.rl.env_specs.spec_to_dict`), if known.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_states: np.ndarray | None = None
    seeds: np.ndarray | None = None
    env_spec: dict[str, Any] | None = None

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted sums of rewards, (N,)."""
        return self.rewards.sum(1, dtype=np.float64)

    @property
    def step_mask(self) -> np.ndarray:
        """A mask of the steps that were played, (N, T)."""
        return np.arange(self.rewards.shape[1]) < self.lengths[:, None]

    def returns_to_go(self, totals: np.ndarray | None = None, *, delayed: bool = False) -> np.ndarray:
        """Return the returns-to-go (N, T), R_t = total - r_0 - … - r_{t-1}, from `totals` (the returns if None).

        Delayed rewards all come at the end of an episode: R_t is the total at every step.
        """
        totals = self.returns if totals is None else totals
        before = 0 * self.rewards if delayed else np.cumsum(self.rewards, axis=1) - self.rewards
        return totals[:, None] - before


def windows(
    trajectories: Trajectories,
    returns_to_go: np.ndarray,
    episodes: np.ndarray,
    first: np.ndarray,
    context: int,
    state_offset: Sequence[float] | None = None,
) -> Batch:
    """Return a batch: `context` steps K of `episodes` (B,), from the step `first` (B,) on.

    Args:
        state_offset: (S,), subtracted from the states before they are rounded to float32 (`domains.rl.float32`).
    Returns:
        "returns_to_go" (B, K); "states" (B, K, S) or images; "actions" (B, K) or (B, K, A); "timesteps" (B, K);
        "step_mask" (B, K), False on the padding at the right.
    """
    at = first[:, None] + np.arange(context)  # (B, K)
    step_mask = at < trajectories.lengths[episodes, None]
    episodes, at = episodes[:, None], np.minimum(at, trajectories.actions.shape[1] - 1)
    batch = {
        "returns_to_go": returns_to_go[episodes, at].astype(np.float32),
        "states": subtract_offset(trajectories.states[episodes, at], state_offset),
        "actions": trajectories.actions[episodes, at],
        "timesteps": at,
        "step_mask": step_mask,
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def subtract_offset(states: np.ndarray, state_offset: Sequence[float] | None) -> np.ndarray:
    """Return states (*, S) minus the offset as float32; images stay bytes."""
    if states.dtype == np.uint8:
        return states
    return (states if state_offset is None else states - np.array(state_offset)).astype(np.float32, copy=False)


def flatten(trajectories: Trajectories) -> dict[str, np.ndarray]:
    """Return the arrays of the file: the steps of all episodes, end to end."""
    step_mask = trajectories.step_mask
    last = step_mask & ~np.roll(step_mask, -1, axis=1) if step_mask.shape[1] > 1 else step_mask
    last[:, -1] = step_mask[:, -1]
    arrays = {
        "observations": trajectories.states[step_mask],  # (M, S)
        "actions": trajectories.actions[step_mask],
        "rewards": trajectories.rewards[step_mask],
        "terminated": (last & trajectories.terminated[:, None])[step_mask],
        "truncated": (last & trajectories.truncated[:, None])[step_mask],
        "episode_length": trajectories.lengths.astype(np.int32),
    }
    known = {"episode_seed": trajectories.seeds, "final_observations": trajectories.final_states}
    return arrays | {name: array for name, array in known.items() if array is not None}


def pad(arrays: dict[str, np.ndarray]) -> Trajectories:
    """Return the episodes from the arrays of the file."""
    lengths = arrays["episode_length"].astype(np.int64)
    step_mask = np.arange(lengths.max()) < lengths[:, None]  # (N, T)
    states = to_smallest_float(arrays["observations"])
    ends, final_states = np.cumsum(lengths) - 1, arrays.get("final_observations")

    def padded(flat: np.ndarray) -> np.ndarray:
        out = np.zeros((*step_mask.shape, *flat.shape[1:]), flat.dtype)
        out[step_mask] = flat
        return out

    return Trajectories(
        states=padded(states),
        actions=padded(arrays["actions"].astype(np.int64 if arrays["actions"].ndim == 1 else np.float32, copy=False)),
        rewards=padded(arrays["rewards"].astype(np.float32, copy=False)),
        lengths=lengths,
        terminated=arrays["terminated"][ends].astype(bool),
        truncated=arrays["truncated"][ends].astype(bool),
        final_states=None if final_states is None else final_states.astype(states.dtype, copy=False),
        seeds=arrays.get("episode_seed"),
    )


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """Concatenate sets of episodes from one environment; keep the optional arrays that all of them have."""
    flat = [flatten(part) for part in parts]
    known = [name for name in flat[0] if all(name in arrays for arrays in flat)]
    if any(len({arrays[name].shape[1:] for arrays in flat}) > 1 for name in ("observations", "actions")):
        raise ValueError("these sets of episodes have states or actions of different shapes, and cannot be joined")
    joined = pad({name: np.concatenate([arrays[name] for arrays in flat]) for name in known})
    joined.env_spec = parts[0].env_spec
    return joined


def write(path: Path, env_id: str, trajectories: Trajectories, **more: Any) -> None:
    """Write one compressed .npz file (docs/data.md). Training does not read the arrays in `more`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = flatten(trajectories) | {"episode_return": trajectories.returns}
    if trajectories.env_spec is not None:
        arrays["env_spec"] = np.array(json.dumps(trajectories.env_spec))
    with open(path, "wb") as file:  # with a file name, numpy would append .npz
        np.savez_compressed(file, env_id=np.array(env_id), **arrays, **more)


def read(path: str | Path) -> tuple[str, Trajectories]:
    """Read the environment's id and the episodes of such a file.

    Raises:
        ValueError: if the file does not exist, is damaged, or is inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; attend collect env=… writes such a file (docs/data.md)")
    try:
        arrays = read_npz(path, "it", (*STEP_ARRAYS, *EPISODE_ARRAYS, "env_id", "env_spec"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; copy or collect it again") from error
    check(arrays, str(path))
    trajectories = pad(arrays)
    if "env_spec" in arrays:
        try:
            trajectories.env_spec = json.loads(to_text(arrays["env_spec"]))
            if not isinstance(trajectories.env_spec, dict):
                raise ValueError("it has no names")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} has an env_spec that is no JSON of EnvSpec.to_json(): {error}") from error
    return to_text(arrays["env_id"]), trajectories


def to_text(array: np.ndarray) -> str:
    """Return the string in an array. Raise ValueError if it holds no single string."""
    value = array.item() if array.size == 1 else None
    if not isinstance(value, str | bytes):
        raise ValueError(f"{array.dtype} of shape {array.shape} is no text")
    return value if isinstance(value, str) else value.decode()


def check(arrays: dict[str, np.ndarray], path: str) -> None:
    """Raise ValueError for the first inconsistency in the arrays of a file."""
    needed = (*STEP_ARRAYS, "episode_length", "env_id")
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"{path} has no {', '.join(missing)}; it needs {', '.join(needed)} (docs/data.md)")
    strange = [
        name
        for name, kinds in SCALAR_KINDS.items()
        if name in arrays and (arrays[name].ndim != 1 or arrays[name].dtype.kind not in kinds)
    ]
    if strange:
        raise ValueError(
            f"{path} has {describe_arrays(arrays, strange)}; possible: one number a step or episode, rewards real,"
            " terminated and truncated true or false, lengths and seeds whole (docs/data.md)"
        )
    seen, actions, lengths = arrays["observations"], arrays["actions"], arrays["episode_length"]
    seeable = (seen.ndim == 2 and seen.dtype.kind in "biuf") or (seen.ndim in (3, 4) and seen.dtype == np.uint8)
    if not seeable or (actions.ndim, actions.dtype.kind) not in {(1, "i"), (1, "u"), (2, "f")}:
        raise ValueError(
            f"{path} has {describe_arrays(arrays, ('observations', 'actions'))}; possible: observations (steps, width)"
            " or images of bytes, actions whole numbers (steps,) or real ones (steps, width)"
        )
    final_states = arrays.get("final_observations", seen)
    if final_states.shape[1:] != seen.shape[1:] or final_states.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} has {describe_arrays(arrays, ('observations', 'final_observations'))}; those must be of one kind"
        )
    steps = {name: len(arrays[name]) for name in STEP_ARRAYS} | {"episode_length": int(lengths.sum())}
    if len(set(steps.values())) > 1 or not len(lengths) or lengths.min() < 1:
        counted = ", ".join(f"{name} {count}" for name, count in steps.items())
        raise ValueError(f"{path} is not whole: its steps are {counted}; each must be the same, and no episode empty")
    if any(len(arrays[name]) != len(lengths) for name in EPISODE_ARRAYS if name in arrays):
        raise ValueError(f"{path} needs one of {', '.join(EPISODE_ARRAYS)} for each of its {len(lengths)} episodes")
    widest = max(arrays[name][:1].nbytes for name in STEP_ARRAYS)
    check_room(len(lengths) * int(lengths.max()) * widest, f"{path}, with every episode as long as its longest one,")
    if actions.ndim == 1 and not 0 <= actions.min() <= actions.max() < MAX_ACTIONS:
        wrong = actions.min() if actions.min() < 0 else actions.max()
        raise ValueError(f"{path} has the action {wrong}; actions are numbered from 0, to {MAX_ACTIONS:,} at most")
    for name in ("observations", "rewards", "actions"):
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path} has {name} that are not finite; leave those episodes out")
        if (most := max_magnitude(arrays[name])) > MAX_MAGNITUDE:
            raise ValueError(f"{path} has {name} of {most:.3g}, beyond what float32 calculates with; rescale them")
    warn_coarse("rewards", arrays["rewards"], path)
    for name in ("terminated", "truncated"):
        if arrays[name].dtype != bool and not np.isin(arrays[name], (0, 1)).all():
            raise ValueError(f"{path} has {name} that are neither 0 nor 1")
    try:
        to_text(arrays["env_id"])
    except ValueError as error:
        raise ValueError(f"{path} has an env_id that is no text ({error}), such as CartPole-v1, or none") from error
    over, ends = arrays["terminated"].astype(bool) | arrays["truncated"].astype(bool), np.cumsum(lengths) - 1
    if not over[ends].all() or over.sum() != len(ends):
        raise ValueError(
            f"{path}: the last step of each episode, and no other, must be terminated or truncated; an episode that was"
            " merely cut off is truncated"
        )


def describe_arrays(arrays: dict[str, np.ndarray], names: Iterable[str]) -> str:
    """Return the shapes and dtypes of some arrays as text, for messages."""
    return ", ".join(f"{name} {arrays[name].shape} of {arrays[name].dtype}" for name in names)
