"""Who plays when trajectories are collected: chance, Gymnasium's own controller, or a trained network.

Shapes: n episodes that run · S state width · A number of actions, or width of one
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
from domains.rl.precision import FINE
from domains.rl.rollout import Policy
from domains.rl.trajectories import Trajectories

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "none": lambda x: x}
OUTPUTS = ("argmax", "argmax_q", "tanh", "clip")
LANDERS = {"LunarLander-v3": False, "LunarLanderContinuous-v3": True}  # is it continuous?
NORMALISED = ("obs_mean", "obs_var", "eps", "clip_obs")  # all of them, or none
Rngs = Sequence[np.random.Generator]


@runtime_checkable
class Controller(Protocol):
    """Chooses from what it sees."""

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        """States (n, S), all at the same time step, and a generator for each, to actions (n,) or (n, A)."""
        ...


def make_controller(name: str, env_id: str, about: dict[str, Any]) -> Controller:
    """random, heuristic or the path of a network, for an environment of which `about` is known (`describe`).

    Raises:
        ValueError: for an unknown name, an environment without heuristic, or a network that does not fit.
    """
    match name:
        case "random":
            return Random(about)
        case "heuristic" if env_id in LANDERS:
            return Heuristic(LANDERS[env_id])
        case "heuristic":
            raise ValueError(f"policy=heuristic is there for {', '.join(LANDERS)}, not for {env_id}")
        case path if path.endswith(".npz"):
            return Network(path, read_network(Path(path)), about)
        case path if path.endswith(".zip"):
            return Network(path, read_baselines3(Path(path), discrete="actions" in about), about)
    raise ValueError(
        f"policy={name} is unknown; possible: random, heuristic, or the path of a run folder, of a network in an .npz"
        " file or of a Stable-Baselines3 model in a .zip file"
    )


class Random:
    """Every action as likely as any other."""

    def __init__(self, about: dict[str, Any]):
        self.about = about

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        if "actions" in self.about:
            return np.array([rng.integers(self.about["actions"]) for rng in rngs])
        return np.array([rng.uniform(self.about["low"], self.about["high"]) for rng in rngs])


class Heuristic:
    """Gymnasium's own controller of the lunar lander."""

    def __init__(self, continuous: bool):
        from gymnasium.envs.box2d.lunar_lander import heuristic

        self.heuristic = heuristic
        self.env: Any = SimpleNamespace(unwrapped=SimpleNamespace(continuous=continuous))  # all that it asks of one

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        return np.array([self.heuristic(self.env, state) for state in states])


def read_network(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file. Raises ValueError if there is none."""
    try:
        return read_npz(path, "it")
    except ValueError as error:
        raise ValueError(f"policy={path}: {error}; a network in one is described in docs/data.md") from error


def fault_of(arrays: dict[str, Any]) -> str:
    """What keeps arrays from being a network (docs/data.md); empty if they are one."""
    count = np.asarray(arrays.get("n_layers", 1))
    if count.shape or count.dtype.kind not in "iu" or count < 1:
        return f"n_layers={count} must be a whole number of at least 1"
    layers = range(min(int(count), len(arrays)))  # there are no more
    needed = {"n_layers", "act", "out"} | {f"{what}{n}" for n in layers for what in "wb"}
    if arrays.keys() & {"obs_mean", "obs_var"}:
        needed |= {*NORMALISED}
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


class Network:
    """A trained actor, a perceptron.

        a = out(W_n … act(W_1 s + b_1) … + b_n)

    Args:
        name: where it comes from, for complaints.
        arrays: as docs/data.md lists them (`read_network`).
        about: the environment, as `describe` has it. A network whose input is one number wider than a state takes the
            part of the time limit that is left there, as some of DLR-RM/rl-trained-agents do.
    Raises:
        ValueError: for arrays that are no network, or do not fit the environment.
    """

    def __init__(self, name: str, arrays: dict[str, Any], about: dict[str, Any]):
        if not isinstance(about["states"], int):
            raise ValueError(f"policy={name} takes vectors, and the environment shows images; possible: policy=random")
        if fault := fault_of(arrays):
            raise ValueError(f"policy={name} is no network: {fault} (docs/data.md)")
        if str(arrays["act"]) not in ACTIVATIONS or str(arrays["out"]) not in OUTPUTS:
            raise ValueError(
                f"policy={name} has act={arrays['act']} and out={arrays['out']}; possible: {', '.join(ACTIVATIONS)} and"
                f" {', '.join(OUTPUTS)}"
            )
        self.about, depth = about, int(arrays["n_layers"])
        self.layers = [(arrays[f"w{n}"].astype(np.float64), arrays[f"b{n}"].astype(np.float64)) for n in range(depth)]
        self.act, self.out = ACTIVATIONS[str(arrays["act"])], str(arrays["out"])
        self.clipped = bool(arrays.get("sde", False))  # state-dependent exploration clips its mean
        self.norm, self.exact = None, False  # exact: float32 is too coarse for what is normalised
        if "obs_mean" in arrays:
            std = np.sqrt(arrays["obs_var"] + arrays["eps"])
            self.norm = arrays["obs_mean"], std, float(arrays["clip_obs"])
            steps = np.spacing(np.abs(arrays["obs_mean"]).astype(np.float32))
            self.exact = bool((steps / 2 > std / FINE).any())
        self.timed = self.layers[0][0].shape[1] == about["states"] + 1
        self._check(name)
        if self.timed:
            warn_data(
                f"policy={name} takes one number more than a state: it is given the part of the time that is left"
            )

    def _check(self, name: str) -> None:
        inputs, outputs = self.layers[0][0].shape[1] - self.timed, len(self.layers[-1][1])
        discrete, width = self.out.startswith("argmax"), make_actions(self.about).width
        fits = outputs % width == 0 if self.out == "argmax_q" else outputs == width
        if inputs != self.about["states"] or discrete != ("actions" in self.about) or not fits:
            kind = "numbered actions" if discrete else "actions that are vectors"
            raise ValueError(
                f"policy={name} does not fit: it takes states of {inputs} numbers and gives {outputs} for {kind}; the"
                f" environment has states of {self.about['states']} and {_shape(self.about)}"
            )

    def __call__(self, states: np.ndarray, step: int, rngs: Rngs) -> np.ndarray:
        x = (states if self.exact else states.astype(np.float32)).astype(np.float64)  # (n, S)
        if self.timed:
            x = np.concatenate([x, np.full((len(x), 1), 1 - step / self.about["limit"])], 1)
        if self.norm is not None:
            mean, std, most = self.norm
            x = np.clip((x - mean) / std, -most, most)
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight.T + bias
            if number < len(self.layers) - 1:
                x = self.act(x)
        if self.out.startswith("argmax"):  # argmax_q: the last axis is (quantiles, actions)
            return x.reshape(len(x), -1, self.about["actions"]).mean(1).argmax(1)
        low, high = np.array(self.about["low"]), np.array(self.about["high"])
        if self.out == "tanh":
            x = np.tanh(np.clip(x, -2, 2) if self.clipped else x)
            x = low + (x + 1) * (high - low) / 2
        return np.clip(x, low, high)


def _shape(about: dict[str, Any]) -> str:
    return f"{about['actions']} actions" if "actions" in about else f"actions of {len(about['low'])} numbers"


class Sighted:
    """A controller as a rollout's Policy: all that it looks at is the state.

    Args:
        controller: who chooses.
        rngs: (N,), of the episodes.
    """

    def __init__(self, controller: Controller, rngs: Rngs):
        self.controller, self.rngs = controller, rngs

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        return self.controller(played.states[running, step], step, [self.rngs[n] for n in running])


class Noisy:
    """Players side by side, each episode with its own, its own noise and its own generator (a rollout's Policy).

    Noise is the chance of a random action at any step; or, for vectors, the standard deviation of what is added to
    each number, in halves of its range.

    Args:
        players: who plays.
        which: (N,), who plays an episode.
        noise: (N,).
        rngs: (N,).
        about: the environment.
    """

    def __init__(
        self, players: Sequence[Policy], which: np.ndarray, noise: np.ndarray, rngs: Rngs, about: dict[str, Any]
    ):
        self.players, self.which, self.noise, self.rngs, self.about = players, which, noise, rngs, about
        self.random = Random(about)

    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        actions = np.zeros((len(running), *played.actions.shape[2:]), played.actions.dtype)
        for number, player in enumerate(self.players):
            at = np.flatnonzero(self.which[running] == number)
            if len(at):
                actions[at] = self.disturbed(player(played, running[at], step), running[at], step)
        return actions

    def disturbed(self, actions: np.ndarray, running: np.ndarray, step: int) -> np.ndarray:
        rngs, noise = [self.rngs[n] for n in running], self.noise[running]
        if "actions" in self.about:
            blind = np.array([rng.random() for rng in rngs]) < noise
            return np.where(blind, self.random(actions, step, rngs), actions)
        low, high = np.array(self.about["low"], np.float32), np.array(self.about["high"], np.float32)
        added = np.array([rng.standard_normal(len(low)) for rng in rngs]) * noise[:, None] * (high - low) / 2
        return np.clip(actions + added, low, high).astype(np.float32)
