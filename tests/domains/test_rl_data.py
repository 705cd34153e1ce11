"""Trajectories from files, from Minari and from `attend collect`: what is kept, what replays, what is refused."""

import io
import json
import shlex
import sys
import zipfile
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import domains.rl.collect
from core.config import PositionConfig
from domains.data_warnings import DataWarning
from domains.rl.adapter import Adapter
from domains.rl.agents import make_policy
from domains.rl.collect import collect
from domains.rl.config import DataConfig, ModelConfig, Source
from domains.rl.data import Data
from domains.rl.environments import describe_env, make, normalized_scores
from domains.rl.evaluate import evaluate
from domains.rl.key_to_door import SIDE, STEPS, KeyToDoor
from domains.rl.minari import from_minari, to_minari
from domains.rl.policies import make_controller
from domains.rl.rollout import rollout
from domains.rl.trajectories import flatten, join, pad, read, write
from experiments.collect import run
from experiments.compose import compose

LENGTHS = np.array([5, 1, 7, 3, 2])
HOPPER = {"state_shape": 11, "low": [-1.0] * 3, "high": [1.0] * 3, "max_episode_steps": 1000}


def made(actions="numbers", states=4, lengths=LENGTHS):
    """The arrays of a file: made-up steps, every other episode cut off."""
    rng, steps = np.random.default_rng(0), int(lengths.sum())
    last = np.isin(np.arange(steps), np.cumsum(lengths) - 1)
    cut = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    drawn = {"numbers": rng.integers(0, 2, steps), "vectors": rng.uniform(-1, 1, (steps, 3)).astype(np.float32)}
    return {
        "observations": rng.normal(size=(steps, states)).astype(np.float32),
        "actions": drawn[actions],
        "rewards": rng.normal(size=steps).astype(np.float32),
        "terminated": last & ~cut,
        "truncated": last & cut,
        "episode_length": lengths.astype(np.int32),
        "episode_seed": 100 + np.arange(len(lengths)),
        "final_observations": rng.normal(size=(len(lengths), states)).astype(np.float32),
    }


@pytest.fixture
def saved(tmp_path):
    """saved(arrays, env) -> the path of a file with them."""

    def save(arrays, env="CartPole-v1"):
        path = tmp_path / "some.npz"
        np.savez_compressed(path, env_id=np.array(env), **arrays)
        return path

    return save


def loaded(path, **settings):
    settings = {"context": 3, "batch_size": 2, "held_out": 0.2} | settings
    data = Data(DataConfig(source=Source.trajectories, path=str(path), **settings))
    data.setup()
    return data


# The file


@pytest.mark.parametrize("kind", ["numbers", "vectors"])
def test_what_is_written_is_read(kind, tmp_path):
    arrays = made(kind)
    trajectories = pad(arrays)
    assert trajectories.lengths.tolist() == LENGTHS.tolist()
    assert trajectories.terminated.tolist() == [True, False, True, False, True]
    assert trajectories.truncated.tolist() == [False, True, False, True, False]
    assert not trajectories.states[1, 1:].any()
    path = tmp_path / "deep" / "file"
    write(path, "Some-v0", trajectories, note="by hand")
    env_id, again = read(path)
    assert env_id == "Some-v0"
    for name, array in flatten(again).items():
        assert array.dtype == arrays[name].dtype, name
        assert np.array_equal(array, arrays[name]), name
    with np.load(path) as file:
        assert np.allclose(file["episode_return"], trajectories.returns)
        assert str(file["note"]) == "by hand"


def test_whole_numbers_and_bytes_will_do_where_nothing_is_lost(saved):
    kinds = {"terminated": np.uint8, "truncated": np.int64, "actions": np.uint8, "final_observations": np.float64}
    arrays = made() | {"rewards": np.arange(18)}
    _, trajectories = read(saved({name: array.astype(kinds.get(name, array.dtype)) for name, array in arrays.items()}))
    want = pad(arrays)
    for name, array in vars(want).items():
        found = getattr(trajectories, name)
        if name == "env_spec":
            assert found is None
            continue
        assert (found.dtype, found.tolist()) == (array.dtype, array.tolist()), name


def test_sets_are_joined_episode_by_episode():
    one, two = pad(made()), pad(made(lengths=np.array([2, 11])))
    both = join([one, two])
    assert both.lengths.tolist() == [*LENGTHS, 2, 11]
    assert np.array_equal(both.states[:5, :7], one.states)
    assert np.array_equal(both.rewards[5:], two.rewards)
    assert both.seeds is not None
    assert np.array_equal(both.seeds, [100, 101, 102, 103, 104, 100, 101])


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def with_(**changes):
    return lambda arrays: arrays | {name: change(arrays[name].copy()) for name, change in changes.items()}


def holed(array):
    array[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("rewards"), r"has no rewards; it needs observations, actions, .*docs/data.md"),
        (with_(actions=lambda a: a[:-1]), r"is not whole: its steps are observations 18, actions 17, .*_length 18"),
        (with_(episode_length=lambda a: a[:-1]), "is not whole: .* episode_length 16"),
        (with_(episode_length=lambda a: np.array([6, 0, 7, 3, 2])), "no episode empty"),
        (with_(episode_seed=lambda a: a[:-1]), "one of episode_length, .* for each of its 5 episodes"),
        (with_(observations=holed), "has observations that are not finite"),
        (
            with_(actions=lambda a: a[:, None]),
            r"actions \(18, 1\) of int64; possible: observations \(steps, width\) or images",
        ),
        (
            with_(observations=lambda a: a[:, None]),
            r"observations \(18, 1, 4\) of float32, .*possible: .* images of bytes",
        ),
        (with_(actions=lambda a: a - 1), "has the action -1; actions are numbered from 0"),
        (with_(terminated=lambda a: a & False), "and no other, must be terminated or truncated"),
        (with_(truncated=lambda a: a | True), "and no other, must be terminated or truncated"),
        (
            with_(terminated=lambda a: a.astype(float)),
            r"has terminated \(18,\) of float64; possible: one number a step",
        ),
        (with_(truncated=lambda a: a[:, None]), r"has truncated \(18, 1\) of bool; .* true or false, .*docs/data.md"),
        (with_(rewards=lambda a: a.astype(str)), r"has rewards \(18,\) of <U32; possible: .* rewards real"),
        (with_(rewards=lambda a: a[:, None]), r"has rewards \(18, 1\) of float32; possible: one number"),
        (with_(episode_length=lambda a: a[None]), r"has episode_length \(1, 5\) of int32; .* lengths and seeds whole"),
        (with_(episode_seed=lambda a: a / 7), r"has episode_seed \(5,\) of float64; possible"),
        (with_(observations=lambda a: a.astype(str)), r"observations \(18, 4\) of <U32, .*possible: observations"),
        (with_(final_observations=lambda a: a[:, :3]), r"final_observations \(5, 3\) of .*those must be of one kind"),
        (with_(rewards=lambda a: a.astype(object)), "cannot be read: .*collect it again"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change, message, saved):
    with pytest.raises(ValueError, match=message):
        read(saved(change(made())))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.98])
def test_a_file_cut_short_is_refused(kept, saved):
    path = saved(made())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"some.npz cannot be read: it is no .npz file, .*; copy or collect it again"):
        read(path)


def test_a_file_damaged_within_is_refused(saved):
    path = saved(made())
    whole = bytearray(path.read_bytes())
    whole[200:260] = bytes(60)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"some.npz cannot be read"):
        read(path)


def test_a_file_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.npz does not exist; attend collect"):
        read(tmp_path / "nowhere.npz")


# Training data


def test_a_file_is_training_data(saved):
    data = loaded(saved(made()))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [3, 1, 1]
    assert data.size("train") == LENGTHS[data.splits["train"]].sum()
    spec = data.spec()
    assert json.loads(json.dumps(spec)) == spec
    assert (spec["env_id"], spec["max_episode_steps"], spec["num_actions"]) == ("CartPole-v1", 500, 2)
    assert spec["best_return"] == pytest.approx(data.trajectories.returns[data.splits["train"]].max())
    other = Data(data.config, seed=7)
    other.setup()
    assert np.array_equal(other.splits["train"], data.splits["train"])  # seeds can be compared


def test_the_best_steps_alone_are_shown(saved):
    whole, best = loaded(saved(made())), loaded(saved(made()), top_share=0.4)
    train = whole.splits["train"]
    assert np.array_equal(best.splits["train"], train)
    shown = np.unique(best.starts["train"][:, 0])
    ranked = train[np.argsort(-whole.trajectories.returns[train])]
    assert set(shown) == set(ranked[: len(shown)])
    steps = LENGTHS[train].sum()
    assert LENGTHS[ranked[: len(shown) - 1]].sum() < 0.4 * steps <= LENGTHS[shown].sum()
    assert best.size("val") == whole.size("val")
    assert best.spec() == whole.spec()


def test_delayed_rewards_leave_the_return_as_it_is(saved):
    now, later = loaded(saved(made())), loaded(saved(made()), delayed=True)
    assert later.spec()["delayed"]
    for n, length in enumerate(LENGTHS):
        assert np.allclose(later.returns_to_go[n, :length], now.trajectories.returns[n])
        assert np.allclose(now.returns_to_go[n, length - 1], now.trajectories.rewards[n, length - 1], atol=1e-6)


@pytest.mark.parametrize("kind", ["numbers", "vectors"])
def test_no_environment_is_needed_to_train(kind, saved):
    spec = loaded(saved(made(kind), "Nowhere-v0"), env_id="none").spec()
    assert (spec["env_id"], spec["max_episode_steps"], spec["state_shape"]) == (None, 7, 4)
    if kind == "numbers":
        assert spec["num_actions"] == 2
    else:
        assert spec["low"] == made(kind)["actions"].min(0).tolist()


@pytest.mark.parametrize("value", [0.0, -0.25, 2**30])
def test_a_number_of_an_action_may_never_change(value, saved, tmp_path):
    arrays = made("vectors")
    arrays["actions"][:, 1] = value
    data = loaded(saved(arrays, "Nowhere-v0"), env_id="none")
    spec = data.spec()
    assert spec["low"][1] < value < spec["high"][1]
    assert spec["low"][::2] == arrays["actions"].min(0)[::2].tolist()
    adapter = Adapter(ModelConfig(dim=12, depth=1, num_heads=3), PositionConfig(), spec).eval()
    (score,) = evaluate(adapter, data, tmp_path).scores
    assert 0 < score.value < 1
    assert 0 < score.baseline_value < 1


@pytest.mark.parametrize(
    ("arrays", "env", "message"),
    [
        (
            made(states=3),
            "CartPole-v1",
            "some.npz does not fit CartPole-v1: its states have 3 numbers and not 4 numbers. Name",
        ),
        (made("vectors"), "CartPole-v1", "its actions are vectors of 3 numbers and not whole numbers"),
        (made(states=3), "Pendulum-v1", "its actions are whole numbers and not vectors of 1 numbers"),
        (made("vectors", 3), "Pendulum-v1", "its actions are vectors of 3 numbers and not vectors of 1 numbers"),
        (with_(actions=lambda a: a + 3)(made()), "CartPole-v1", "its actions go up to 4 and not to 1"),
        (made("numbers", 15, np.array([11, 5, 3])), "KeyToDoor-v0", "its longest episode has 11 steps and not at most"),
        (with_(actions=lambda a: 9 * a[:, :1])(made("vectors", 3)), "Pendulum-v1", r"go beyond the bounds .*\[2.0\]"),
        (made(), "CartPoll-v1", "knows no environment 'CartPoll-v1'; did you mean CartPole-v1"),
    ],
)
def test_data_of_another_environment_are_refused(arrays, env, message, saved):
    with pytest.raises(ValueError, match=message):
        loaded(saved(arrays, env))


def test_an_environment_can_be_named(saved):
    assert loaded(saved(made(), "Renamed-v0"), env_id="CartPole-v1").env_id == "CartPole-v1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": None}, "data=trajectories needs data.path=FILE.npz; attend collect"),
        ({"held_out": 0.5}, "0 < held_out < 0.5"),
        ({"top_share": 0.0}, "0 < top_share <= 1"),
        ({"temperature": 0.0}, "data.temperature=0.0 must be above 0"),
        ({"source": Source.minari}, "minari"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Data(DataConfig(**({"source": Source.trajectories, "path": "x.npz"} | settings))).setup()


def test_too_few_episodes_are_refused(saved):
    with pytest.raises(ValueError, match="has 2 episodes; each of three splits needs one"):
        loaded(saved(made(lengths=np.array([4, 3]))))


def test_files_are_split_each_on_its_own(tmp_path):
    for name, lengths in (("old", LENGTHS), ("new", np.array([2, 11, 6, 4]))):
        arrays = made(lengths=lengths)
        if name == "new":
            arrays = without("episode_seed")(arrays)
        np.savez_compressed(tmp_path / f"{name}.npz", env_id=np.array("CartPole-v1"), **arrays)
    old, both = (
        loaded(tmp_path / "old.npz"),
        Data(
            DataConfig(
                source=Source.trajectories,
                path=[str(tmp_path / f"{name}.npz") for name in ("old", "new")],
                held_out=0.2,
            )
        ),
    )
    both.setup()
    assert both.trajectories.lengths.tolist() == [*LENGTHS, 2, 11, 6, 4]
    assert both.trajectories.seeds is None  # not all know theirs
    for split in ("train", "val", "test"):
        first = both.splits[split] < len(LENGTHS)
        assert np.array_equal(both.splits[split][first], old.splits[split])
        assert (~first).sum() == {"train": 2, "val": 1, "test": 1}[split]
    assert both.size("train") == both.trajectories.lengths[both.splits["train"]].sum()


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        ({}, {}, r"data.path mixes environments \(Acrobot-v1, CartPole-v1\); name one file, or several of one"),
        ({"states": 6}, {"env_id": "none"}, "states or actions of different shapes, and cannot be joined"),
        ({"actions": "vectors"}, {"env_id": "CartPole-v1"}, "other.npz does not fit CartPole-v1"),
        ({"lengths": np.array([1, 2])}, {"env_id": "CartPole-v1"}, "other.npz has 2 episodes; each of three"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(other, settings, message, saved, tmp_path):
    np.savez_compressed(tmp_path / "other.npz", env_id=np.array("Acrobot-v1"), **made(**other))
    paths = [str(saved(made())), str(tmp_path / "other.npz")]
    with pytest.raises(ValueError, match=message):
        Data(DataConfig(source=Source.trajectories, path=paths, held_out=0.2, **settings)).setup()


# Environments


def test_an_unknown_environment_is_one_sentence():
    with pytest.raises(ValueError, match="Gymnasium knows no environment 'Hoper-v5'; did you mean Hopper-v5"):
        make("Hoper-v5")
    with pytest.raises(ValueError, match="knows no environment 'x'; an environment id looks like CartPole-v1"):
        make("x")


@pytest.mark.parametrize(
    ("env", "package", "extra"), [("Hopper-v5", "mujoco", "mujoco"), ("LunarLander-v3", "Box2D", "box2d")]
)
def test_a_missing_extra_is_named(env, package, extra, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"gymnasium.envs.{extra}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ValueError, match=rf"{env} needs a package that is not installed: pip install -e '.\[{extra}\]"):
        describe_env(env)


def test_scores_are_those_of_d4rl():
    assert normalized_scores("Hopper-v5", 17.1)["normalised"] == 0
    assert normalized_scores("Hopper-v5", 3234.3)["normalised_d4rl"] == pytest.approx(100)
    assert set(normalized_scores("CartPole-v1", 250.0)) == {"normalised"}
    assert normalized_scores("Unheard-v0", 1.0) == {}


def walk(moves, seed=0):
    """Observations, rewards and ends of Key-to-Door."""
    env = make("KeyToDoor-v0")
    observations, outcomes = [env.reset(seed=seed)[0]], []
    for move in moves:
        observation, reward, terminated, truncated, _ = env.step(move)
        observations.append(observation)
        outcomes.append((reward, terminated, truncated))
    return np.array(observations), outcomes, cast(KeyToDoor, env.unwrapped)


def way(place):
    """Moves from the middle of a room to a place, then back and forth at a wall until the time is over."""
    down, right = place[0] - SIDE // 2, place[1] - SIDE // 2
    moves = [2 if down > 0 else 0] * abs(down) + [1 if right > 0 else 3] * abs(right)
    return moves, STEPS - len(moves)


@pytest.mark.parametrize("seed", range(5))
def test_the_key_opens_the_door_and_nothing_else_does(seed):
    _, _, env = walk([], seed)
    to_key, left = way(env.key)
    to_door, _ = way(env.door)
    with_key = [*to_key, *[0] * left, *[0] * STEPS, *to_door]
    seen, outcomes, _ = walk(with_key, seed)
    assert outcomes[-1] == (1.0, True, False)
    assert all(outcome == (0.0, False, False) for outcome in outcomes[:-1])
    away = [2 if env.key[0] < SIDE // 2 else 0] * STEPS
    if env.key[0] == SIDE // 2:
        without_key, outcomes, _ = walk([*away, *[0] * STEPS, *to_door], seed)
        assert outcomes[-1] == (0.0, True, False)
        assert np.array_equal(without_key[2 * STEPS :], seen[2 * STEPS :])  # it cannot be seen who has the key


def test_key_to_door_is_an_environment():
    check_env(make("KeyToDoor-v0").unwrapped, skip_render_check=True)
    assert describe_env("KeyToDoor-v0") == {
        "max_episode_steps": 3 * STEPS,
        "state_shape": 3 + 4 * SIDE,
        "num_actions": 4,
    }
    _, outcomes, env = walk([0] * (3 * STEPS), seed=next(s for s in range(9) if walk([], s)[2].door[1] != 1))
    assert outcomes[-1] == (0.0, True, True)
    assert env.render().shape == (12 * (SIDE + 2), 12 * (SIDE + 2), 3)


# Collecting


def replayed(env_id, trajectories):
    """Whether reset(seed) and the actions make every episode again, bit for bit."""
    env = make(env_id)
    for n, length in enumerate(trajectories.lengths):
        state, _ = env.reset(seed=int(trajectories.seeds[n]))
        for step in range(length):
            assert np.array_equal(np.float32(state), trajectories.states[n, step])
            state, reward, *over, _ = env.step(trajectories.actions[n, step])
            assert np.float32(reward) == trajectories.rewards[n, step]
            assert over == (
                [trajectories.terminated[n], trajectories.truncated[n]] if step == length - 1 else [False, False]
            )
        assert np.array_equal(np.float32(state), trajectories.final_states[n])
    env.close()


@pytest.mark.parametrize(("env", "noise"), [("CartPole-v1", 0.0), ("Pendulum-v1", 0.3), ("KeyToDoor-v0", 0.5)])
def test_collected_episodes_replay_bit_for_bit(env, noise, monkeypatch, tmp_path):
    trajectories, by = collect(env, ["random"], 5, noise, seed=3)
    write(tmp_path / "some.npz", env, trajectories, **by)
    replayed(env, read(tmp_path / "some.npz")[1])
    monkeypatch.setattr(domains.rl.collect, "PARALLEL_EPISODES", 2)
    again, other = collect(env, ["random"], 5, noise, seed=3)[0], collect(env, ["random"], 5, noise, seed=4)[0]
    assert np.array_equal(again.actions, trajectories.actions)  # whoever plays beside it
    assert not np.array_equal(other.states[:, 0], trajectories.states[:, 0])
    assert by["episode_noise"].max() <= noise


@pytest.mark.parametrize("env", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_the_lander_lands_by_gymnasiums_controller(env):
    pytest.importorskip("Box2D", reason="needs the extra box2d")
    good, _ = collect(env, ["heuristic"], 3, 0.0, seed=0)
    assert good.returns.mean() > 150
    noisy, by = collect(env, ["heuristic", "random"], 4, 1.0, seed=0)
    assert by["episode_behaviour"].tolist() == [0, 1, 0, 1]
    assert noisy.returns[1::2].mean() < 0
    replayed(env, noisy)


def test_hopper_replays():
    pytest.importorskip("mujoco", reason="needs the extra mujoco")
    trajectories, _ = collect("Hopper-v5", ["random"], 3, 0.2, seed=0)
    assert np.abs(trajectories.actions).max() <= 1
    replayed("Hopper-v5", trajectories)


def network(path, sizes, out, **more):
    """A file with a network of random weights, and the weights."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=pair[::-1]).astype(np.float32) for pair in pairwise(sizes)]
    arrays = {f"w{n}": w for n, w in enumerate(weights)} | {f"b{n}": w[:, 0] / 2 for n, w in enumerate(weights)}
    np.savez(path, n_layers=len(weights), act="tanh", out=out, **arrays, **more)
    return weights


def network_of(path, about):
    return make_controller(str(path), "Some-v0", about)


def test_a_network_acts_as_its_formula_says(tmp_path):
    path, states = tmp_path / "net.npz", np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    norm = {"obs_mean": np.arange(11.0), "obs_var": np.full(11, 4.0), "eps": 0.0, "clip_obs": 1.5}
    one, two = network(path, (11, 5, 3), "tanh", **norm)
    x = np.clip((states - np.arange(11)) / 2, -1.5, 1.5)
    want = np.tanh(np.tanh(x @ one.T + one[:, 0] / 2) @ two.T + two[:, 0] / 2)
    about = HOPPER | {"low": [-1.0, 0.0, -4.0], "high": [1.0, 2.0, 4.0]}
    got = network_of(path, about)(states, 0, [])
    np.testing.assert_allclose(got, want * [1, 1, 4] + [0, 1, 0], atol=1e-6)
    network(path, (11, 5, 3), "clip")
    assert set(np.unique(np.abs(network_of(path, HOPPER)(9 * states, 0, [])))) >= {1.0}


def test_a_network_can_know_the_time_and_have_quantiles(tmp_path):
    path, states = tmp_path / "net.npz", np.zeros((2, 4), np.float32)
    about = {"state_shape": 4, "num_actions": 3, "max_episode_steps": 10}
    (weight,) = network(path, (5, 3), "argmax")
    with pytest.warns(
        DataWarning, match=r"net.npz takes one number more than a state: .* part of the time that is left"
    ):
        takes_time = network_of(path, about)
    for step in (0, 9):
        want = (weight[:, 4] * (1 - step / 10) + weight[:, 0] / 2).argmax()
        assert takes_time(states, step, []).tolist() == [want, want]
    (weight,) = network(path, (4, 6), "argmax_q")
    assert network_of(path, about)(states, 0, []).tolist() == [(weight[:3, 0] + weight[3:, 0]).argmax()] * 2


@pytest.mark.parametrize(
    ("sizes", "out", "message"),
    [
        ((9, 3), "clip", "it takes states of 9 numbers and gives 3 for .* vectors; the environment has states of 11"),
        ((11, 4), "clip", "gives 4 for actions that are vectors; .* actions of 3 numbers"),
        ((11, 3), "argmax", "gives 3 for numbered actions"),
    ],
)
def test_a_network_of_another_environment_is_refused(sizes, out, message, tmp_path):
    network(tmp_path / "net.npz", sizes, out)
    with pytest.raises(ValueError, match=message):
        network_of(tmp_path / "net.npz", HOPPER)


def test_a_file_that_is_no_network_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=r"is no network: it has no act, b0, n_layers, out, w0 .docs/data.md"):
        network_of(saved(made()), HOPPER)
    network(tmp_path / "net.npz", (11, 3), "softmax")
    with pytest.raises(ValueError, match=r"act=tanh and out=softmax; possible: tanh, relu, none and argmax, "):
        network_of(tmp_path / "net.npz", HOPPER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_(n_layers=lambda n: 0 * n), r"net.npz is no network: n_layers=0 must be a whole number of at least 1"),
        (with_(n_layers=lambda n: n / 7), "n_layers=0.28.* must be a whole number"),
        (with_(n_layers=lambda n: n + 10**15), r"it has no .*b2.*docs/data.md"),
        (with_(w0=lambda w: w[:, 0]), r"w0 must be \(outputs, inputs\)"),
        (with_(w1=lambda w: w[:, :-1]), r"w1 is \(3, 4\) of float32 and not \(3, 5\) of numbers"),
        (with_(b0=lambda b: b[:-1]), r"b0 is \(4,\) of float32 and not \(5,\)"),
        (with_(w1=lambda w: w.astype(str)), r"w1 is \(3, 5\) of <U32 and not \(3, 5\) of numbers"),
        (with_(w0=lambda w: w * np.nan), "w0 has nan in it"),
        (without("obs_var"), "it has no obs_var"),
        (without("obs_mean"), "it has no obs_mean"),
        (with_(obs_var=lambda v: v[:-1]), r"obs_var is \(10,\) of float64 and not \(11,\)"),
        (with_(clip_obs=lambda c: np.full(2, c)), r"clip_obs is \(2,\) of float64 and not \(\) of numbers"),
    ],
)
def test_arrays_that_are_no_network_are_refused(change, message, tmp_path):
    path, norm = tmp_path / "net.npz", {"obs_mean": np.zeros(11), "obs_var": np.ones(11), "eps": 0.0, "clip_obs": 1.5}
    network(path, (11, 5, 3), "clip", **norm)
    assert network_of(path, HOPPER)(np.zeros((2, 11)), 0, []).shape == (2, 3)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **change(arrays))
    with pytest.raises(ValueError, match=message):
        network_of(path, HOPPER)


def saved_model(path, layers, **about):
    """What `model.save` of Stable-Baselines3 writes, as far as it is read: weights (outputs, inputs) by name."""
    torch.manual_seed(0)
    state = {f"{name}.weight": torch.randn(shape) for name, shape in layers.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in layers.items()}
    weights = io.BytesIO()
    torch.save(state, weights)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("policy.pth", weights.getvalue())
        file.writestr("data", json.dumps(about))
    return state


def test_a_model_of_stable_baselines_acts_by_its_actor_alone(tmp_path):
    path, states = tmp_path / "ppo.zip", np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    layers = {"mlp_extractor.policy_net.0": (5, 11), "mlp_extractor.value_net.0": (5, 11), "action_net": (3, 5)}
    for activation, act in ((None, torch.tanh), ("<class 'torch.nn.modules.activation.ReLU'>", torch.relu)):
        state = saved_model(path, layers, policy_kwargs={"activation_fn": activation} if activation else {})
        hidden = act(
            torch.from_numpy(states) @ state["mlp_extractor.policy_net.0.weight"].T
            + state["mlp_extractor.policy_net.0.bias"]
        )
        want = (hidden @ state["action_net.weight"].T + state["action_net.bias"]).clamp(-1, 1)
        np.testing.assert_allclose(network_of(path, HOPPER)(states, 0, []), want, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "about", "message"),
    [
        ({"actor.mu.0": (3, 11)}, {"num_actions": 3}, "has no actor for such actions; possible: MlpPolicy of PPO"),
        ({"q_net.q_net.0": (3, 11)}, {}, "has no actor for such actions"),
        ({"action_net": (3, 11), "features_extractor.cnn.0": (3, 11)}, {}, "looks at images"),
        ({"action_net": (4, 11)}, {}, "policy=.*model.zip does not fit"),
        ({"action_net": (3, 11), "lstm_actor.x": (3, 11)}, {}, r"remembers \(LSTM\), which is not read"),
        ({}, {}, "no actor"),
    ],
)
def test_a_model_that_cannot_play_is_refused(layers, about, message, tmp_path):
    path = tmp_path / "model.zip"
    saved_model(path, layers)
    with pytest.raises(ValueError, match=message):
        network_of(path, {"state_shape": 11, "max_episode_steps": 10} | (about or HOPPER))


def test_a_zip_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.zip"
    with pytest.raises(ValueError, match="is no model that Stable-Baselines3 saved"):
        network_of(path, HOPPER)
    saved_model(path, {"action_net": (3, 11)}, policy_kwargs={"activation_fn": "<class 'torch.nn.ELU'>"})
    with pytest.raises(ValueError, match="activation_fn=ELU; possible: Tanh, ReLU, Identity"):
        network_of(path, HOPPER)
    saved_model(path, {"action_net": (3, 11)}, policy_kwargs={"clip_mean": 0.5})
    with pytest.raises(ValueError, match=r"clip_mean=0\.5; possible: 2\.0"):
        network_of(path, HOPPER)
    saved_model(path, {"action_net": (3, 11)}, policy_kwargs=[])
    assert network_of(path, HOPPER)(np.zeros((2, 11)), 0, []).shape == (2, 3)
    saved_model(path, {"action_net": (3, 11)}, policy_kwargs=[7])
    with pytest.raises(ValueError, match="its policy_kwargs have no names"):
        network_of(path, HOPPER)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is no model that Stable-Baselines3 saved"):
        network_of(path, HOPPER)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("policy.pth", bytes(997))
        file.writestr("data", "{}")
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + 4 * b"\xff" + whole[44:])  # what is there cannot be unpacked
    with pytest.raises(ValueError, match=r"is no model that Stable-Baselines3 saved .*decompress"):
        network_of(path, HOPPER)


def test_layers_without_a_bias_are_refused(tmp_path):
    state, weights = {"action_net.weight": torch.randn(3, 11)}, io.BytesIO()
    torch.save(state, weights)
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("policy.pth", weights.getvalue())
        file.writestr("data", "{}")
    with pytest.raises(ValueError, match=r"model.zip has no bias in action_net; possible: MlpPolicy of PPO"):
        network_of(tmp_path / "model.zip", HOPPER)


def an_agent(env="CartPole-v1", **settings):
    torch.manual_seed(0)
    about = describe_env(env)
    width = about["state_shape"]
    spec = about | {"env_id": env, "mean": [0.0] * width, "std": [1.0] * width, "context": 5, "best_return": 9.0}
    return Adapter(
        ModelConfig(dim=12, depth=1, num_heads=3), PositionConfig(), spec | {"return_scale": 50.0} | settings
    )


def taken(trajectories, which=slice(None)):
    """The actions of some episodes, end to end."""
    return trajectories.actions[which][trajectories.step_mask[which]]


@pytest.mark.parametrize("kv_cache", [False, True])
def test_a_run_plays_at_its_target_beside_others(kv_cache, monkeypatch):
    agent = an_agent(kv_cache=kv_cache)
    trajectories, by = collect("CartPole-v1", ["random", "mine"], 7, 0.0, 3, {"mine": agent}, target=60.0)
    assert by["behaviours"].tolist() == ["random", "mine"]
    replayed("CartPole-v1", trajectories)
    mine = by["episode_behaviour"] == 1
    assert trajectories.seeds is not None
    seeds = trajectories.seeds[mine].tolist()
    alone = rollout("CartPole-v1", make_policy(agent, [60.0] * 3, seeds), seeds)
    assert np.array_equal(taken(alone), taken(trajectories, mine))
    less, _ = collect("CartPole-v1", ["random", "mine"], 7, 0.0, 3, {"mine": agent}, target=1.0)
    assert np.array_equal(taken(less, ~mine), taken(trajectories, ~mine))
    assert not np.array_equal(taken(less, mine), taken(trajectories, mine))
    monkeypatch.setattr(domains.rl.collect, "PARALLEL_EPISODES", 2)
    again, _ = collect("CartPole-v1", ["random", "mine"], 7, 0.0, 3, {"mine": agent}, target=60.0)
    assert np.array_equal(taken(again), taken(trajectories))


def test_noise_disturbs_a_run_too_and_it_sees_what_was_done():
    agent, seen = an_agent("Pendulum-v1"), []
    predict_last = agent.predict_last
    agent.predict_last = lambda batch, cache=None: seen.append(batch) or predict_last(batch, cache)
    trajectories, _ = collect("Pendulum-v1", ["mine"], 3, 0.5, 0, {"mine": agent}, target=-100.0)
    quiet, _ = collect("Pendulum-v1", ["mine"], 3, 0.0, 0, {"mine": agent}, target=-100.0)
    assert np.abs(trajectories.actions - quiet.actions).mean() > 0.1
    assert np.array_equal(seen[10]["actions"][:, :-1], trajectories.actions[:, 6:10])


@pytest.mark.parametrize(
    ("agent", "target", "message"),
    [
        ({}, None, "this run predicts no return to ask for"),
        (
            {"env": "Pendulum-v1"},
            1.0,
            "policy=mine was trained on Pendulum-v1 and cannot play CartPole-v1: it has max_episode_steps",
        ),
        ({"num_actions": 3}, 1.0, "it has num_actions 3 and not 2"),
        ({"max_episode_steps": 20}, 1.0, "it has max_episode_steps 20 and not 500"),
        (None, 5.0, "target=5 is asked of trained models alone: give policy=RUN_FOLDER"),
    ],
)
def test_a_run_that_cannot_play_is_refused(agent, target, message):
    runs = {} if agent is None else {"mine": an_agent(**agent)}
    with pytest.raises(ValueError, match=message):
        collect("CartPole-v1", ["mine" if runs else "random"], 3, 0.0, 0, runs, target)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env=CartPole-v1", "policy=expert"], "policy=expert is unknown; possible: random, heuristic, or the path"),
        (["env=CartPole-v1", "policy=core"], "core is no finished run"),
        (["env=CartPole-v1", "policy=heuristic"], "is there for LunarLander-v3, .*, not for CartPole-v1"),
        (["env=CartPole-v1", "policy=no.npz"], "policy=no.npz: it is no .npz file"),
        (["env=CartPole-v1", "episodes=0"], "episodes >= 1"),
        (["env=CartPole-v1", "noise=nan"], "a finite noise >= 0, got 1000 and nan"),
        (["env=CartPole-v1", "policy=[]"], r"policy=\[\] names none; give one, such as policy=random"),
        (["env=FrozenLake-v1"], "FrozenLake-v1 cannot be played"),
        (["env=Cart"], "knows no environment 'Cart'"),
    ],
)
def test_collect_refuses_what_cannot_be(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(compose("collect", [*overrides, f"output={tmp_path}/some.npz"]))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_training_reads(tmp_path, capsys):
    path = tmp_path / "new [old] :cat:" / ("long" * 50) / "some.npz"
    network(tmp_path / "net.npz", (4, 2), "argmax")
    run(compose("collect", ["env=CartPole-v1", f"policy=[random,{tmp_path}/net.npz]", "episodes=7", f"output={path}"]))
    said = capsys.readouterr().out
    assert said.startswith("7 episodes, ")
    wrote, then = said.splitlines()[-1].split("; next: ")
    assert wrote == f"wrote {path}"
    attend, train, *words = shlex.split(then)
    assert (attend, train) == ("attend", "train")
    config = compose("config", words)
    data = loaded(config.data.path)
    assert len(data.trajectories.lengths) == 7
    assert f"return {data.trajectories.returns.mean():.1f} on average" in said


# Minari


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_minari_keeps_the_same_episodes(env, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs the extra minari")
    pytest.importorskip("h5py", reason="needs the extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    trajectories, _ = collect(env, ["random"], 7, 0.0, seed=0)
    to_minari("here/some-v0", env, trajectories, "random")
    env_id, again = from_minari("here/some-v0")
    assert env_id == env
    for name in ("states", "actions", "rewards", "lengths", "terminated", "truncated", "final_states"):
        assert np.array_equal(getattr(again, name), getattr(trajectories, name)), name
    episode = next(iter(minari.load_dataset("here/some-v0").iterate_episodes()))
    assert len(episode.observations) == trajectories.lengths[0] + 1
    data = Data(DataConfig(source=Source.minari, name="here/some-v0", context=5))
    data.setup()
    assert data.spec()["env_id"] == env
    with pytest.raises(ValueError, match=r"minari=here/some-v0: .*exists"):
        to_minari("here/some-v0", env, trajectories, "random")
    with pytest.raises(ValueError, match=r"other-v0 is not on this machine .*minari download here/other-v0.*some-v0"):
        from_minari("here/other-v0")


def test_minari_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("domains.rl.minari.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[minari\]'"):
        from_minari("some-v0")
