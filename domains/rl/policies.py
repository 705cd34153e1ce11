"""Policies that collect trajectories: random actions, Gymnasium's own controller, or a trained network.

Shapes: n active episodes · S state width · A number of actions, or width of one
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from domains.archives import read_npz
from domains.data_warnings import warn_data
from domains.rl.actions import make_actions
from domains.rl.baselines3 import read_baselines3
from domains.rl.float32 import MIN_RESOLUTION
from domains.rl.rollout import Policy
from domains.rl.trajectories import Trajectories

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "none": lambda x: x}
OUTPUTS = ("argmax", "argmax_q", "tanh", "clip")
LANDERS = {"LunarLander-v3": False, "LunarLanderContinuous-v3": True}  # is it continuous?
NORMALIZATION_ARRAYS = ("obs_mean", "obs_var", "eps", "clip_obs")  # all of them, or none of them
Rngs = Sequence[np.random.Generator]


@runtime_checkable
class Controller(Protocol):
    """Chooses actions from the current states."""

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        """Return actions (n,) or (n, A) for states (n, S) at one time step, with a generator for each."""
        ...


def make_controller(name: str, env_id: str, description: dict[str, Any]) -> Controller:
    """Return the controller "random", "heuristic" or of a network's path, for an environment (`describe_env`).

    Raises:
        ValueError: for an unknown name, an environment without heuristic, or a network that does not fit.
    """
    match name:
        case "random":
            return RandomController(description)
        case "heuristic" if env_id in LANDERS:
            return HeuristicController(LANDERS[env_id])
        case "heuristic":
            raise ValueError(f"policy=heuristic is there for {', '.join(LANDERS)}, not for {env_id}")
        case path if path.endswith(".npz"):
            return NetworkController(path, read_network(Path(path)), description)
        case path if path.endswith(".zip"):
            return NetworkController(
                path, read_baselines3(Path(path), discrete="num_actions" in description), description
            )
    raise ValueError(
        f"policy={name} is unknown; possible: random, heuristic, or the path of a run folder, of a network in an .npz"
        " file or of a Stable-Baselines3 model in a .zip file"
    )


class RandomController:
    """Samples actions uniformly."""

    def __init__(self, description: dict[str, Any]):
        self.description = description

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        if "num_actions" in self.description:
            return np.array([rng.integers(self.description["num_actions"]) for rng in rngs])
        return np.array([rng.uniform(self.description["low"], self.description["high"]) for rng in rngs])


class HeuristicController:
    """Gymnasium's own controller for the lunar lander."""

    def __init__(self, continuous: bool):
        from gymnasium.envs.box2d.lunar_lander import heuristic

        self.heuristic = heuristic
        self.env: Any = SimpleNamespace(unwrapped=SimpleNamespace(continuous=continuous))  # all that it reads

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        return np.array([self.heuristic(self.env, state) for state in states])


def read_network(path: Path) -> dict[str, Any]:
    """Read the arrays of an .npz file. Raise ValueError if there is none."""
    try:
        return read_npz(path, "it")
    except ValueError as error:
        raise ValueError(f"policy={path}: {error}; a network in one is described in docs/data.md") from error


def network_error(arrays: dict[str, Any]) -> str:
    """Return why arrays are not a network (docs/data.md), or "" if they are."""
    count = np.asarray(arrays.get("n_layers", 1))
    if count.shape or count.dtype.kind not in "iu" or count < 1:
        return f"n_layers={count} must be a whole number of at least 1"
    layers = range(min(int(count), len(arrays)))  # there are no more
    needed = {"n_layers", "act", "out"} | {f"{what}{n}" for n in layers for what in "wb"}
    if arrays.keys() & {"obs_mean", "obs_var"}:
        needed |= {*NORMALIZATION_ARRAYS}
    if missing := needed - arrays.keys():
        return f"it has no {', '.join(sorted(missing))}"
    if flat := [f"w{n}" for n in layers if np.ndim(arrays[f"w{n}"]) != 2 or not np.size(arrays[f"w{n}"])]:
        return f"{', '.join(flat)} must be (outputs, inputs)"
    widths = [np.shape(arrays["w0"])[1], *(len(arrays[f"w{n}"]) for n in layers)]  # inputs, and outputs of each layer
    shapes: dict[str, tuple[int, ...]] = {"obs_mean": (widths[0],), "obs_var": (widths[0],)}
    shapes |= dict.fromkeys(("eps", "clip_obs", "sde"), ())
    for n, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= {f"w{n}": (outputs, inputs), f"b{n}": (outputs,)}
    for name in sorted(shapes.keys() & arrays.keys()):
        found = np.asarray(arrays[name])
        if found.shape != shapes[name] or found.dtype.kind not in "fiub":
            return f"{name} is {found.shape} of {found.dtype} and not {shapes[name]} of numbers"
        if np.isnan(found).any():
            return f"{name} has nan in it"
    return ""


class NetworkController:
    """A trained actor, a multilayer perceptron (MLP).

        a = out(W_n … act(W_1 s + b_1) … + b_n)

    Args:
        name: of the file, for error messages.
        arrays: as docs/data.md lists them (`read_network`).
        description: of the environment (`describe_env`). A network whose input is one wider than a state also takes the
            remaining share of the time limit, as some of DLR-RM/rl-trained-agents do.
    Raises:
        ValueError: for arrays that are not a network, or do not fit the environment.
    """

    def __init__(self, name: str, arrays: dict[str, Any], description: dict[str, Any]):
        if not isinstance(description["state_shape"], int):
            raise ValueError(f"policy={name} takes vectors, and the environment shows images; possible: policy=random")
        if fault := network_error(arrays):
            raise ValueError(f"policy={name} is no network: {fault} (docs/data.md)")
        if str(arrays["act"]) not in ACTIVATIONS or str(arrays["out"]) not in OUTPUTS:
            raise ValueError(
                f"policy={name} has act={arrays['act']} and out={arrays['out']}; possible: {', '.join(ACTIVATIONS)} and"
                f" {', '.join(OUTPUTS)}"
            )
        self.description, depth = description, int(arrays["n_layers"])
        self.layers = [(arrays[f"w{n}"].astype(np.float64), arrays[f"b{n}"].astype(np.float64)) for n in range(depth)]
        self.act, self.out = ACTIVATIONS[str(arrays["act"])], str(arrays["out"])
        self.clip_mean = bool(arrays.get("sde", False))  # state-dependent exploration clips its mean
        self.norm, self.needs_float64 = None, False  # float32 is too coarse for the normalized input
        if "obs_mean" in arrays:
            std = np.sqrt(arrays["obs_var"] + arrays["eps"])
            self.norm = arrays["obs_mean"], std, float(arrays["clip_obs"])
            steps = np.spacing(np.abs(arrays["obs_mean"]).astype(np.float32))
            self.needs_float64 = bool((steps / 2 > std / MIN_RESOLUTION).any())
        self.takes_time = self.layers[0][0].shape[1] == description["state_shape"] + 1
        self._check(name)
        if self.takes_time:
            warn_data(
                f"policy={name} takes one number more than a state: it is given the part of the time that is left"
            )

    def _check(self, name: str) -> None:
        inputs, outputs = self.layers[0][0].shape[1] - self.takes_time, len(self.layers[-1][1])
        discrete, width = self.out.startswith("argmax"), make_actions(self.description).width
        fits = outputs % width == 0 if self.out == "argmax_q" else outputs == width
        if inputs != self.description["state_shape"] or discrete != ("num_actions" in self.description) or not fits:
            kind = "numbered actions" if discrete else "actions that are vectors"
            raise ValueError(
                f"policy={name} does not fit: it takes states of {inputs} numbers and gives {outputs} for {kind}; the"
                f" environment has states of {self.description['state_shape']} and {_shape(self.description)}"
            )

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        x = (states if self.needs_float64 else states.astype(np.float32)).astype(np.float64)  # (n, S)
        if self.takes_time:
            x = np.concatenate([x, np.full((len(x), 1), 1 - step / self.description["max_episode_steps"])], 1)
        if self.norm is not None:
            mean, std, clip = self.norm
            x = np.clip((x - mean) / std, -clip, clip)
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight.T + bias
            if number < len(self.layers) - 1:
                x = self.act(x)
        if self.out.startswith("argmax"):  # argmax_q: the last axis is (quantiles, actions)
            return x.reshape(len(x), -1, self.description["num_actions"]).mean(1).argmax(1)
        low, high = np.array(self.description["low"]), np.array(self.description["high"])
        if self.out == "tanh":
            x = np.tanh(np.clip(x, -2, 2) if self.clip_mean else x)
            x = low + (x + 1) * (high - low) / 2
        return np.clip(x, low, high)


def _shape(description: dict[str, Any]) -> str:
    return (
        f"{description['num_actions']} actions"
        if "num_actions" in description
        else f"actions of {len(description['low'])} numbers"
    )


class ControllerPolicy:
    """A controller as a rollout's Policy: it uses the current state only.

    Args:
        controller: chooses the actions.
        rngs: (N,), of the episodes.
    """

    def __init__(self, controller: Controller, rngs: Rngs):
        self.controller, self.rngs = controller, rngs

    def __call__(self, trajectories: Trajectories, active: np.ndarray, step: int) -> np.ndarray:
        return self.controller(trajectories.states[active, step], step, [self.rngs[n] for n in active])


class NoisyPolicy:
    """Several policies, with noise: each episode has its own policy, noise level and generator (a rollout's Policy).

    The noise level is the probability of a random action; or, for vectors, the standard deviation of the added noise,
    in halves of the range.

    Args:
        policies: the policies.
        policy_ids: (N,), the policy of each episode.
        noise: (N,).
        rngs: (N,).
        description: of the environment (`describe_env`).
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        policy_ids: np.ndarray,
        noise: np.ndarray,
        rngs: Rngs,
        description: dict[str, Any],
    ):
        self.policies, self.policy_ids, self.noise, self.rngs, self.description = (
            policies,
            policy_ids,
            noise,
            rngs,
            description,
        )
        self.random = RandomController(description)

    def __call__(self, trajectories: Trajectories, active: np.ndarray, step: int) -> np.ndarray:
        actions = np.zeros((len(active), *trajectories.actions.shape[2:]), trajectories.actions.dtype)
        for number, policy in enumerate(self.policies):
            at = np.flatnonzero(self.policy_ids[active] == number)
            if len(at):
                actions[at] = self.add_noise(policy(trajectories, active[at], step), active[at], step)
        return actions

    def add_noise(self, actions: np.ndarray, active: np.ndarray, step: int) -> np.ndarray:
        rngs, noise = [self.rngs[n] for n in active], self.noise[active]
        if "num_actions" in self.description:
            is_random = np.array([rng.random() for rng in rngs]) < noise
            return np.where(is_random, self.random(actions, step, rngs), actions)
        low, high = np.array(self.description["low"], np.float32), np.array(self.description["high"], np.float32)
        added = np.array([rng.standard_normal(len(low)) for rng in rngs]) * noise[:, None] * (high - low) / 2
        return np.clip(actions + added, low, high).astype(np.float32)
