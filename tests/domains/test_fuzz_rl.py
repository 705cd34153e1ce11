"""Made-up trajectories, specifications, networks and replies: each gives a result that is finite, or one sentence."""

import io
import json
import os
import warnings
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domains.rl.collect import collect
from domains.rl.config import DataConfig, Source
from domains.rl.data import Data
from domains.rl.env_specs import (
    PASSIVE_WRAPPERS,
    RECREATED_WRAPPERS,
    format_env,
    registered_spec,
    spec_from_dict,
    spec_to_dict,
)
from domains.rl.environments import describe_env
from domains.rl.policies import make_controller

EXAMPLES = int(os.environ.get("ATTEND_FUZZ", "40"))
CALM = settings(
    max_examples=EXAMPLES,
    derandomize="ATTEND_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
DTYPES = ["?", "u1", "i1", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "U3", "S2", "M8[s]"]
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.5, 1e-40, 1e9, 1.7e9, 1e38, -1e300, np.nan, np.inf, -np.inf])
NAMES = st.sampled_from(["CartPole-v1", "Pendulum-v1", "CartPole", "none", "", "x:y-v0", "Ü-v0", "a/b", "Hopper-v2"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | NAMES
JSON = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3))


@st.composite
def spec(draw):
    """An EnvSpec's JSON, with some of it changed."""
    told = spec_to_dict(registered_spec(draw(st.sampled_from(["CartPole-v1", "Pendulum-v1", "KeyToDoor-v0"]))))
    for _ in range(draw(st.integers(0, 2))):
        told[draw(st.sampled_from([*told]))] = draw(JSON)
    wrapper = {
        "name": st.sampled_from(sorted(RECREATED_WRAPPERS | PASSIVE_WRAPPERS)) | st.text(max_size=4),
        "entry_point": st.sampled_from(["gymnasium.wrappers.x:Y", "gymnasium.wrappers:Y", "evil:Evil"]) | JSON,
        "kwargs": st.dictionaries(
            st.sampled_from(["min_action", "max_action", "stack_size", "shape", "delay", "bins", "x"]), JSON, max_size=3
        ),
    }
    if draw(st.booleans()):
        told["additional_wrappers"] = draw(st.lists(st.fixed_dictionaries({}, optional=wrapper), max_size=2))
    if draw(st.booleans()):
        told["kwargs"] = draw(st.dictionaries(st.sampled_from(["sutton_barto_reward", "g", "x"]), JSON, max_size=2))
    if draw(st.booleans()):
        told["max_episode_steps"] = draw(st.integers(-1, 30) | JSON)
    return told


def episodes(draw):
    """The arrays of a file: some episodes of random lengths."""
    lengths = np.array(draw(st.lists(st.integers(1, 7), min_size=1, max_size=7)))
    steps, rng = lengths.sum(), np.random.default_rng(draw(st.integers(0, 99)))
    ends, cut = np.isin(np.arange(steps), np.cumsum(lengths) - 1), rng.random(steps) < 0.5
    vectors = draw(st.booleans())
    return {
        "observations": rng.normal(size=(steps, 3 if vectors else 4)),
        "actions": rng.uniform(-2, 2, (steps, 1)) if vectors else rng.integers(0, 2, steps),
        "rewards": rng.normal(size=steps),
        "terminated": ends & cut,
        "truncated": ends & ~cut,
        "episode_length": lengths,
        "episode_seed": np.arange(len(lengths)),
        "final_observations": rng.normal(size=(len(lengths), 3 if vectors else 4)),
        "env_id": np.array("Pendulum-v1" if vectors else "CartPole-v1"),
    }


@st.composite
def files(draw):
    """Arrays, of which some have another dtype, magnitude, shape or length, or numbers that are none."""
    arrays = episodes(draw)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(arrays)))
        arrays[name] = changed(draw, arrays[name])
    if draw(st.booleans()):
        arrays["env_id"] = np.array(draw(NAMES))
    if draw(st.booleans()):
        told = json.dumps(draw(spec() | JSON))
        arrays["env_spec"] = np.array(draw(st.sampled_from([told, told[:-2], told.encode()])))
    return arrays


def changed(draw, array):
    how = draw(st.sampled_from(["dtype", "scale", "shift", "spoil", "axis", "flat", "cut", "empty", "single", "alike"]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            match how:
                case "dtype":
                    return array.astype(draw(st.sampled_from(DTYPES)))
                case "scale":
                    return array * draw(NUMBERS)
                case "shift":
                    return array.astype(draw(st.sampled_from(["f4", "f8"]))) + draw(NUMBERS)
                case "spoil":
                    array = array.astype("f8")
                    array.flat[draw(st.integers(0, array.size - 1))] = draw(NUMBERS)
                    return array
                case "axis":
                    return array[..., None]
                case "flat":
                    return array.ravel()
                case "cut":
                    return array[: draw(st.integers(0, len(array)))]
                case "empty":
                    return array[:0]
                case "single":
                    return array.ravel()[0]
                case _:
                    return np.full_like(array, array.ravel()[0])
        except (ValueError, TypeError, IndexError):  # such a change cannot be made to such an array
            return array


def refused(call, said: list[str]):
    """Return what a call gives; its complaint goes to `said`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except ValueError as error:
            said.append(str(error))
            assert 0 < len(said[-1].splitlines()) <= 3


def test_made_up_trajectories_are_trained_on_or_refused(tmp_path):
    said, read = [], []

    @CALM
    @given(files(), st.sampled_from([None, "none", "CartPole-v1"]))
    def train(arrays, env_id):
        np.savez(tmp_path / "some.npz", **arrays)
        config = DataConfig(source=Source.trajectories, path=str(tmp_path / "some.npz"), context=3)
        data = Data(config)
        data.config.env_id = env_id
        if refused(lambda: data.setup() or True, said):
            known, batch = data.spec(), data.batch("train", range(data.size("train")))
            assert all(tensor.isfinite().all() for tensor in batch.values())
            json.dumps(known)
            assert np.isfinite([*known["mean"], *known["std"], known["best_return"], known["return_scale"]]).all()
            read.append(known)

    train()
    assert said
    assert read


def test_made_up_specifications_are_made_or_refused():
    said, made = [], []

    @CALM
    @given(spec() | JSON)
    def make(told):
        env = refused(lambda: spec_from_dict(told), said)
        if env is not None:
            assert format_env(env)
            made.append(refused(lambda: describe_env(env), said))

    make()
    assert said
    assert any(made)


def test_made_up_networks_play_or_are_refused(tmp_path):
    said, trajectories = [], []
    good = {"n_layers": np.array(2), "act": np.array("tanh"), "out": np.array("argmax")}
    good |= {"w0": np.ones((5, 4)), "b0": np.ones(5), "w1": np.ones((2, 5)), "b1": np.ones(2)}
    norm = {"obs_mean": np.zeros(4), "obs_var": np.ones(4), "eps": np.array(0.0), "clip_obs": np.array(5.0)}

    @CALM
    @given(st.data(), st.booleans(), st.sampled_from(["npz", "zip"]))
    def play(data, normed, kind):
        arrays = good | (norm if normed else {})
        for _ in range(data.draw(st.integers(0, 2))):
            name = data.draw(st.sampled_from(sorted(arrays)))
            arrays = arrays | {name: changed(data.draw, arrays[name])}
        path = tmp_path / f"some.{kind}"
        if kind == "npz":
            np.savez(path, allow_pickle=False, **arrays)
        else:
            zipped(path, arrays, data.draw(JSON | st.fixed_dictionaries({"policy_kwargs": JSON})))
        about = {"state_shape": 4, "num_actions": 2, "max_episode_steps": 9}
        network = refused(lambda: make_controller(str(path), "CartPole-v1", about), said)
        if network is not None:
            with np.errstate(all="ignore"):
                assert network(np.zeros((3, 4)), 0, []).shape == (3,)
            trajectories.append(network)

    play()
    assert said
    assert trajectories


def zipped(path, arrays, about) -> None:
    """The arrays as the zip of a PPO of Stable-Baselines3."""
    names = {"w0": "mlp_extractor.policy_net.0.weight", "b0": "mlp_extractor.policy_net.0.bias"}
    names |= {"w1": "action_net.weight", "b1": "action_net.bias"}
    state = {}
    for name, theirs in names.items():
        try:
            state[theirs] = torch.from_numpy(np.asarray(arrays[name]).copy())
        except TypeError:  # text and times
            state[theirs] = arrays[name].tolist()
    weights = io.BytesIO()
    torch.save(state, weights)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("policy.pth", weights.getvalue())
        file.writestr("data", json.dumps(about))


class Babbling(gymnasium.Env):
    """Replies with what it is told."""

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)

    def __init__(self, replies):
        self.replies, self.time = replies, 0

    def reset(self, *, seed=None, options=None):
        return self.replies[0]

    def step(self, action):
        self.time += 1
        return self.replies[min(self.time, len(self.replies) - 1)]


SEEN = st.sampled_from([np.zeros(2), np.zeros(2, "i4"), [0, 0], (1.0, 2.0), np.full(2, 1e9), np.full(2, 99.0)])
SEEN |= st.sampled_from([np.zeros(1), np.zeros((2, 1)), None, "ab", {"a": 1}, [[1], 2], np.full(2, 1e300), [np.nan, 0]])
REWARDS = st.sampled_from([1, 1.0, True, np.float32(2), np.array([1.0]), [1], 10**400, None, "1", np.zeros(2), 1j])
FLAGS = st.sampled_from([True, False, False, np.bool_(False), 0, 1, np.int8(1), 0.5, 2, None, "False", np.nan])


def test_whatever_an_environment_replies_is_kept_or_refused():
    said, kept = [], []
    usual = st.tuples(SEEN, REWARDS | NUMBERS, FLAGS, FLAGS, st.just({}))
    good = st.tuples(st.just(np.zeros(2)), st.floats(-1, 1), st.just(False), st.just(False), st.just({}))

    @CALM
    @given(st.tuples(SEEN, st.just({})) | SEEN, st.lists(good | usual | st.just(()) | SEEN, min_size=1, max_size=4))
    def play(first, replies):
        gymnasium.register("Babbling-v0", lambda **options: Babbling([first, *replies]), max_episode_steps=5)
        try:
            found = refused(lambda: collect("Babbling-v0", ["random"], 2, 0.0, 0)[0], said)
        finally:
            del gymnasium.registry["Babbling-v0"]
        if found is not None:
            assert np.isfinite(found.states).all()
            assert np.isfinite(found.returns).all()
            assert (found.terminated | found.truncated).all()
            kept.append(found)

    play()
    assert said
    assert kept


@pytest.fixture(autouse=True)
def no_module_is_trusted(monkeypatch):
    monkeypatch.delenv("ATTEND_MODULES", raising=False)
