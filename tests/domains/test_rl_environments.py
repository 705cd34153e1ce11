"""Environments as they were recorded, by their whole specification; and what an environment may not reply."""

import json
import sys
import warnings
from dataclasses import replace
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from core.config import PositionConfig
from domains.data_warnings import DataWarning
from domains.rl.adapter import Adapter
from domains.rl.agents import DecisionActor, make_policy
from domains.rl.collect import collect, env_for_runs
from domains.rl.config import DataConfig, ModelConfig, Source
from domains.rl.data import Data
from domains.rl.env_specs import format_env, registered_spec, spec_from_dict, spec_to_dict
from domains.rl.environments import describe_env, make, normalized_scores, recreate_env_or_warn
from domains.rl.evaluate import evaluate
from domains.rl.explain import explanations
from domains.rl.init_from import fitted
from domains.rl.minari import from_minari, to_minari
from domains.rl.policies import make_controller
from domains.rl.predict import predict
from domains.rl.rollout import rollout
from domains.rl.training_plots import picture
from domains.rl.trajectories import read, write
from experiments.collect import run
from experiments.compose import compose

STEPS, WIDTH = 7, 3
SEEN = Box(0, 1, (WIDTH,), np.float32)
PART: Any = (-0.5, 0.5)  # of the range of an action; Gymnasium's own annotation leaves plain numbers out
SUTTON = {"kwargs": {"sutton_barto_reward": True}, "max_episode_steps": 13}


class Odd(gymnasium.Env):
    """States of three numbers, for seven steps; what is given instead is what it shows, pays or is."""

    def __init__(self, actions=None, seen=None, **replies):
        self.action_space = actions or Discrete(2)
        self.observation_space = seen or Box(-np.inf, np.inf, (WIDTH,), np.float32)
        self.replies, self.got = replies, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.replies["reset"](self) if "reset" in self.replies else (self.show(), {})

    def step(self, action) -> Any:
        self.time += 1
        self.got.append(np.copy(action))
        if "act" in self.replies:
            self.replies["act"](self, action)
        reward = self.replies["reward"](self) if "reward" in self.replies else self.np_random.normal()
        over = self.replies.get("over", bool)(self.time >= STEPS)
        return (self.show(), reward, over, False, {})[: self.replies.get("length", 5)]

    def render(self):
        return np.full((11, 13, 3), 200, np.uint8)

    def show(self):
        return self.replies["show"](self) if "show" in self.replies else self.np_random.normal(size=WIDTH)


@pytest.fixture
def odd(request):
    """odd(**replies) -> the id of an `Odd` environment, and a list of all that were made of it."""
    made, ids = [], []

    def register(limit=29, **replies):
        def create(**options):
            made.append(Odd(**replies))
            return made[-1]

        ids.append(f"{request.node.name.partition('[')[0].replace('_', '-')}-{len(ids)}x-v0")
        gymnasium.register(ids[-1], create, max_episode_steps=limit)
        return ids[-1], made

    yield register
    for env_id in ids:
        del gymnasium.registry[env_id]


def cartpole(**changes):
    """The specification of CartPole-v1 in a file, with some changes."""
    return spec_to_dict(registered_spec("CartPole-v1")) | changes


def recorded_as(told, path, episodes=11):
    """A file of random episodes in CartPole as `spec_from_dict` makes it, with `told` as its specification."""
    try:
        env = spec_from_dict(told)
        describe_env(env)
    except ValueError:
        env = "CartPole-v1"
    trajectories, _ = collect(env, ["random"], episodes, 0.0, seed=0)
    trajectories.env_spec = told
    write(path, told["id"], trajectories)
    return path


def loaded(path, **settings):
    settings = {"source": Source.trajectories, "path": str(path)} | settings
    data = Data(DataConfig(context=5, batch_size=17, **settings))
    data.setup()
    return data


def untrained(data, **settings):
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=12, depth=1, num_heads=3, **settings), PositionConfig(), data.spec()).eval()


# Specifications


def test_a_specification_is_that_of_gymnasium_and_comes_back():
    told = json.loads(json.dumps(cartpole(**SUTTON)))
    assert EnvSpec.from_json(json.dumps(told)).kwargs == SUTTON["kwargs"]
    spec = spec_from_dict(told)
    assert spec_to_dict(spec) == told
    assert format_env(spec) == "CartPole-v1 with sutton_barto_reward=True, max_episode_steps=13"
    assert spec_from_dict(cartpole()) == registered_spec("CartPole-v1")
    env = make(spec)
    rewards, over = [], False
    env.reset(seed=0)
    while not over:
        _, reward, *ends, _ = env.step(0)
        rewards.append(reward)
        over = any(ends)
    env.close()
    assert rewards[-1] == -1  # of a fall; 0 before
    assert not any(rewards[:-1])
    assert describe_env(spec)["max_episode_steps"] == 13


def test_the_agent_is_judged_in_the_environment_that_was_recorded(tmp_path):
    data = loaded(recorded_as(cartpole(**SUTTON), tmp_path / "some.npz"))
    assert data.trajectories.returns.min() == -1
    assert data.spec()["max_episode_steps"] == 13
    assert json.loads(json.dumps(data.spec())) == data.spec()
    adapter = untrained(data)
    metrics = evaluate(adapter, data, tmp_path / "evaluate").metrics
    for achieved in metrics["achieved"].values():
        assert -1 <= achieved["mean"] <= 0
        assert achieved["steps"] <= 13
        assert "normalised" not in achieved  # the references are those of another environment
    told = json.loads(predict(adapter, "CartPole-v1", tmp_path / "predict")[1].read_text())
    assert told["environment"] == "CartPole-v1 with sutton_barto_reward=True, max_episode_steps=13"
    assert all(episode["return"] in (-1, 0) and episode["steps"] <= 13 for episode in told["episodes"])
    (explanation,) = explanations(adapter, "CartPole-v1")
    assert dict(explanation.answers)["return"] in ("-1", "0")
    picture(adapter, data, tmp_path / "step_000001.png")
    rows = (tmp_path / "returns.csv").read_text().splitlines()[1:]
    assert all(-1 <= float(row.rpartition(",")[2]) <= 0 for row in rows)


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # of Gymnasium's own spaces
def test_wrappers_of_gymnasium_are_made_again():
    wrapped = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=11), *PART)
    wrapped = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.TimeAwareObservation(wrapped))
    assert wrapped.spec is not None
    told = json.loads(wrapped.spec.to_json())
    spec = spec_from_dict(told)
    assert format_env(spec) == "Pendulum-v1 with max_episode_steps=11, RescaleAction, TimeAwareObservation"
    assert describe_env(spec) == {"max_episode_steps": 11, "state_shape": 4, "low": [-0.5], "high": [0.5]}
    trajectories, _ = collect(spec, ["random"], 5, 0.0, seed=1)
    assert trajectories.seeds is not None
    state, _ = wrapped.reset(seed=int(trajectories.seeds[0]))
    for step in range(11):
        assert np.array_equal(np.float32(state), trajectories.states[0, step])
        state, *_ = wrapped.step(trajectories.actions[0, step])
    wrapped.close()
    assert normalized_scores(spec, -100.0) == {}
    assert set(normalized_scores(spec_from_dict(spec_to_dict(registered_spec("Pendulum-v1"))), -100.0)) == {
        "normalised"
    }


EVIL = {"name": "RescaleAction", "entry_point": "evil:RescaleAction", "kwargs": {"min_action": -1.0, "max_action": 1.0}}
OURS = EVIL | {"entry_point": "gymnasium.wrappers.transform_action:RescaleAction"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"entry_point": "evil:Evil"}, "was recorded with the class 'evil:Evil', and CartPole-v1 is gymnasium"),
        (
            {"additional_wrappers": [EVIL]},
            "wrapper 'RescaleAction' cannot be made from a file alone; possible: those of gymn",
        ),
        ({"additional_wrappers": [OURS | {"kwargs": None}]}, "wrapper 'RescaleAction' cannot be made"),
        ({"additional_wrappers": [OURS]}, "CartPole-v1 with RescaleAction cannot be made: TypeError"),
        (
            {"additional_wrappers": [OURS | {"name": "TransformReward", "kwargs": {"func": None}}]},
            "wrapper 'TransformReward' cannot be made",
        ),
        (
            {"additional_wrappers": [OURS | {"name": "NormalizeObservation", "kwargs": {}}]},
            "wrapper 'NormalizeObservation' cannot be made",
        ),
        ({"additional_wrappers": ["x"]}, "wrapper 'x' cannot be made"),
        ({"additional_wrappers": 7}, "is none of Gymnasium's EnvSpec"),
        ({"kwargs": {"colour": "red"}}, "CartPole-v1 with colour='red' cannot be made: TypeError: .*colour"),
        ({"kwargs": {"xml_file": "/dev/zero"}}, "its argument '/dev/zero' may name a file"),
        ({"kwargs": {"size": [10**9]}}, "its argument 1000000000 is larger than 1,000,000"),
        ({"kwargs": 5}, "is none of Gymnasium's EnvSpec"),
        ({"max_episode_steps": None}, "cannot be played: it has no time limit"),
        ({"max_episode_steps": -3}, "max_episode_steps=-3 is no number of steps"),
        ({"max_episode_steps": "many"}, "max_episode_steps='many' is no number of steps"),
        ({"max_episode_steps": 10**7}, "max_episode_steps=10000000 is more than 1,000,000"),
        ({"id": "evil:Evil-v0"}, "imports the module evil; if you trust it, set ATTEND_MODULES=evil"),
        ({"id": "Unheard-v0"}, "Gymnasium knows no environment 'Unheard-v0'"),
    ],
)
def test_what_cannot_be_made_again_is_said_and_actions_alone_are_judged(changes, why, tmp_path, monkeypatch):
    monkeypatch.delenv("ATTEND_MODULES", raising=False)
    path = recorded_as(cartpole(**changes), tmp_path / "some.npz")
    with pytest.warns(DataWarning, match=f"cannot be made again as it was recorded, and nothing is played: .*{why}"):
        data = loaded(path)
    adapter = untrained(data)
    with pytest.warns(DataWarning, match="cannot be made again"):
        evaluation = evaluate(adapter, data, tmp_path / "evaluate")
    assert [score.metric for score in evaluation.scores] == ["action accuracy"]
    assert not (tmp_path / "evaluate" / "episodes.csv").exists()
    with pytest.raises(ValueError, match="cannot be made again"):
        picture(adapter, data, tmp_path / "step_000001.png")
    with pytest.raises(ValueError, match="cannot be made again"):
        predict(adapter, cartpole(**changes)["id"], tmp_path / "predict")
    assert not (tmp_path / "predict").exists()
    assert "evil" not in sys.modules


def test_a_model_that_does_not_fit_what_is_made_again_does_not_play(tmp_path):
    data = loaded(recorded_as(cartpole(**SUTTON), tmp_path / "some.npz"))
    spec = data.spec()
    assert recreate_env_or_warn(spec) == spec_from_dict(cartpole(**SUTTON))
    with pytest.warns(DataWarning, match="the model has max_episode_steps 11 and not 13"):
        assert recreate_env_or_warn(spec | {"max_episode_steps": 11}) is None
    with pytest.warns(DataWarning, match="its specification is of another id"):
        assert recreate_env_or_warn(spec | {"env_id": "Acrobot-v1"}) is None


def test_modules_that_are_trusted_keep_their_name(tmp_path, monkeypatch):
    module = ModuleType("mine")
    module.Mine = type("Mine", (CartPoleEnv,), {})  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.setenv("ATTEND_MODULES", "other,mine")
    gymnasium.register("Mine-v0", "mine:Mine", max_episode_steps=17, kwargs={"sutton_barto_reward": np.True_})
    try:
        trajectories, _ = collect("mine:Mine-v0", ["random"], 5, 0.0, seed=0)
        write(tmp_path / "some.npz", "mine:Mine-v0", trajectories)
        env_id, again = read(tmp_path / "some.npz")
        assert again.env_spec is not None
        assert (env_id, again.env_spec["id"]) == ("mine:Mine-v0", "mine:Mine-v0")
        assert again.env_spec["kwargs"] == {"sutton_barto_reward": True}
        data = loaded(tmp_path / "some.npz")
        assert recreate_env_or_warn(data.spec()) == registered_spec("mine:Mine-v0")
        monkeypatch.setenv("ATTEND_MODULES", "other")
        with pytest.warns(DataWarning, match="imports the module mine"):
            assert recreate_env_or_warn(data.spec()) is None
    finally:
        del gymnasium.registry["Mine-v0"]


def test_files_of_one_id_and_other_arguments_are_no_mixture(tmp_path):
    paths = [tmp_path / f"{n}.npz" for n in range(3)]
    recorded_as(cartpole(), paths[0])
    recorded_as(cartpole(**SUTTON), paths[1])
    recorded_as(cartpole(), paths[2])
    with np.load(paths[2]) as file:
        np.savez(paths[2], **{name: array for name, array in dict(file).items() if name != "env_spec"})
    data = Data(DataConfig(source=Source.trajectories, path=[str(paths[2]), str(paths[0])]))
    data.setup()  # an id alone is what is registered
    assert data.spec()["env_spec"] == cartpole()
    with pytest.raises(ValueError, match=r"mixes environments \(CartPole-v1, CartPole-v1 with kwargs={'sutton_bart"):
        Data(DataConfig(source=Source.trajectories, path=[str(paths[0]), str(paths[1])])).setup()
    with pytest.warns(DataWarning, match="CartPole-v1 is taken as it is registered here; the data were played in"):
        assert loaded(paths[1], env_id="CartPole-v1").spec()["env_spec"] is None


def test_a_file_whose_specification_is_no_json_is_refused(tmp_path):
    path = recorded_as(cartpole(), tmp_path / "some.npz")
    with np.load(path) as file:
        arrays = dict(file)
    for text, message in (
        ("{", "env_spec that is no JSON"),
        (7, "no JSON .*is no text"),
        ("[7]", "no JSON .*it has no names"),
        ("[" * 10**5, "is no JSON"),
    ):
        np.savez(path, allow_pickle=False, **arrays | {"env_spec": np.array(text)})
        with pytest.raises(ValueError, match=message):
            read(path)
    np.savez(path, allow_pickle=False, **arrays | {"env_id": np.array([1, 2])})
    with pytest.raises(ValueError, match="env_id that is no text"):
        read(path)


def test_a_run_plays_where_it_was_trained_and_time_can_be_limited(tmp_path):
    adapter = untrained(loaded(recorded_as(cartpole(**SUTTON), tmp_path / "some.npz")))
    with pytest.warns(DataWarning, match="played is CartPole-v1 with sutton_barto_reward=True, max_episode_steps=13"):
        env = env_for_runs("CartPole-v1", {"mine": adapter})
    trajectories, _ = collect(env, ["mine"], 3, 0.0, 0, {"mine": adapter}, target=0.0)
    assert set(trajectories.returns) <= {-1.0, 0.0}
    assert env_for_runs("CartPole-v1", {}) == "CartPole-v1"
    assert env_for_runs("CartPole-v1", {}, 5) == replace(registered_spec("CartPole-v1"), max_episode_steps=5)
    with pytest.raises(ValueError, match="max_episode_steps=0 must be at least 1"):
        env_for_runs("CartPole-v1", {}, 0)
    run(compose("collect", ["env=CartPole-v1", "max_episode_steps=5", "episodes=7", f"output={tmp_path}/five.npz"]))
    with pytest.warns(DataWarning, match="all 5 episodes to train on have the return 5"):
        data = loaded(tmp_path / "five.npz")
    assert data.spec()["max_episode_steps"] == data.trajectories.lengths.max() == 5


@pytest.mark.parametrize("told", [cartpole(**SUTTON), cartpole()])
def test_minari_keeps_the_whole_specification(told, tmp_path, monkeypatch):
    pytest.importorskip("minari", reason="needs the extra minari")
    pytest.importorskip("h5py", reason="needs the extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    trajectories, _ = collect(spec_from_dict(told), ["random"], 5, 0.0, seed=0)
    to_minari("here/some-v0", spec_from_dict(told), trajectories, "random")
    env_id, again = from_minari("here/some-v0")
    assert env_id == "CartPole-v1"
    assert again.env_spec is not None
    assert spec_from_dict(again.env_spec) == spec_from_dict(told)
    assert np.array_equal(again.returns, trajectories.returns)


def test_what_a_minari_data_set_lacks_is_said(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs the extra minari")
    pytest.importorskip("h5py", reason="needs the extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)

    def keep(name, actions, seen=None, ends=(True, False, True)):
        buffers = [
            minari.data_collector.EpisodeBuffer(
                id=n,
                observations=rng.uniform(size=(6 + n, *(seen or SEEN).shape)).astype((seen or SEEN).dtype),
                actions=np.stack([actions.sample() for _ in range(5 + n)]),
                rewards=rng.normal(size=5 + n),
                terminations=np.arange(5 + n) == (4 + n if end else -1),
                truncations=np.zeros(5 + n, bool),
            )
            for n, end in enumerate(ends)
        ]
        spaces = {"observation_space": seen or SEEN, "action_space": actions}
        about = dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "some")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari's own: that there is no environment
            minari.create_dataset_from_buffers(f"here/{name}-v0", buffers, **spaces, **about)
        return f"here/{name}-v0"

    stops = keep("stops", Discrete(2))
    with pytest.warns(DataWarning, match=r"1 of 3 episodes in data.name=here/stops-v0 just stop \(first: 1\)"):
        _, trajectories = from_minari(stops)
    assert trajectories.truncated.tolist() == [False, True, False]
    whole = keep("whole", Box(0, 7, (2,), np.int32), ends=(True,) * 3)
    with pytest.warns(DataWarning, match="here/whole-v0 names no environment: nothing is played, and what is known"):
        data = loaded(None, source=Source.minari, name=whole)
    assert data.trajectories.actions.dtype == np.float32
    for name, actions, seen in (("several", MultiDiscrete([2, 3]), None), ("dozen", Discrete(2), Discrete(12))):
        with pytest.raises(ValueError, match=f"here/{name}-v0 has observations .* and actions .*; possible: Box"):
            from_minari(keep(name, actions, seen))


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
def test_minari_keeps_images_as_they_are(odd, tmp_path, monkeypatch):
    pytest.importorskip("minari", reason="needs the extra minari")
    pytest.importorskip("h5py", reason="needs the extra minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = Box(0, 255, (11, 13, 3), np.uint8)
    env_id, _ = odd(seen=space, show=lambda env: env.np_random.integers(256, size=space.shape).astype(np.uint8))
    trajectories, _ = collect(env_id, ["random"], 3, 0.0, seed=0)
    with pytest.warns(DataWarning, match="minari=here/pictures-v0 keeps no environment: .* what JSON cannot hold"):
        to_minari("here/pictures-v0", env_id, trajectories, "random")
    assert np.array_equal(from_minari("here/pictures-v0")[1].states, trajectories.states)


# Replies


def test_the_file_holds_what_the_policy_chose_and_what_was_seen(odd):
    def spoil(env, action):
        action *= 10

    shown = np.zeros(WIDTH, np.float32)  # one array for all episodes

    def show(env):
        shown[:] = env.np_random.normal(size=WIDTH)
        return shown

    env_id, made = odd(actions=Box(-1, 1, (2,), np.float32), act=spoil, show=show)
    trajectories, _ = collect(env_id, ["random"], 3, 0.0, seed=0)
    assert np.abs(trajectories.actions).max() <= 1
    assert np.array_equal(trajectories.actions[0, :STEPS], made[-3].got)
    assert trajectories.seeds is not None
    env = make(env_id)
    assert np.array_equal(env.reset(seed=int(trajectories.seeds[0]))[0], trajectories.states[0, 0])
    assert len(np.unique(trajectories.states[0, :STEPS, 0])) == STEPS


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_whole_numbers_are_given_and_kept(odd, dtype):
    env_id, made = odd(actions=Box(0, 5, (2,), dtype))
    with pytest.warns(DataWarning, match="are whole numbers .*: what a policy chooses is rounded"):
        trajectories, _ = collect(env_id, ["random"], 7, 0.7, seed=0)
    got = np.concatenate([env.got for env in made if env.got])
    assert got.dtype == dtype
    assert np.array_equal(np.unique(got), np.arange(6))
    assert np.array_equal(trajectories.actions[trajectories.step_mask], got)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_bounds_hold_in_the_dtype_of_the_environment(odd, dtype):
    space = Box(dtype(-0.1), dtype(0.1), (2,), dtype)
    env_id, made = odd(actions=space)
    about = describe_env(env_id)
    for choice in (about["low"], about["high"]):
        rollout(env_id, lambda trajectories, active, step, c=choice: np.array([c] * len(active), np.float32), [0])
        assert all(space.contains(action) for action in made[-1].got)


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        (
            {"reward": lambda env: np.nan if env.time == 3 else 1.0},
            r"step 3: the reward is nan, which is not",
        ),
        ({"reward": lambda env: 1e39}, "step 1: the reward is 1e[+]39, which is not finite, or too large"),
        ({"reward": lambda env: None}, "step 1: reward is None, and not one number"),
        ({"reward": lambda env: [1.0, 2.0]}, r"reward is \[1.0, 2.0\], and not one number"),
        ({"show": lambda env: np.full(WIDTH, np.inf)}, "step 0: the observation is not finite"),
        ({"show": lambda env: [0, 0, np.nan] if env.time == 2 else [0, 0, 0]}, "step 2: the observation is not finite"),
        ({"show": lambda env: np.full(WIDTH, 1e300)}, "step 0: the observation is not finite, or too large"),
        ({"show": lambda env: np.zeros(1)}, r"the observation is \(1,\) of float64, and its space Box"),
        ({"show": lambda env: [[0], [0, 1]]}, "step 0: the observation is no array"),
        ({"show": lambda env: None}, r"the observation is \(\) of object"),
        ({"show": lambda env: np.array(["a"] * WIDTH)}, "of <U1, and its space"),
        ({"over": lambda over: "no"}, "terminated or truncated is 'no', and not one number"),
        ({"over": lambda over: 2}, r"terminated and truncated are \[2.0, 0.0\], and not true or false"),
        ({"length": 4}, "step raised ValueError: not enough values"),
        ({"reset": lambda env: np.zeros(WIDTH)}, "step 0: reset"),
        ({"act": lambda env, action: 1 / 0}, "step 0: step raised ZeroDivisionError: division by zero"),
    ],
)
def test_replies_that_are_none_are_refused_while_they_are_collected(odd, replies, message, tmp_path):
    env_id, _ = odd(**replies)
    with pytest.raises(ValueError, match=f"{env_id}, episode 0, .*{message}"):
        run(compose("collect", [f"env={env_id}", "episodes=5", f"output={tmp_path}/some.npz"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", [np.bool_, int, np.int8, float, lambda over: np.array([over])])
def test_flags_and_rewards_of_other_kinds_that_say_the_same_will_do(odd, flag):
    env_id, _ = odd(over=flag, reward=lambda env: np.array([env.time], np.int16))
    trajectories, _ = collect(env_id, ["random"], 3, 0.0, seed=0)
    assert trajectories.lengths.tolist() == [STEPS] * 3
    assert trajectories.terminated.all()
    assert trajectories.returns.tolist() == [28.0] * 3


def test_observations_outside_of_their_space_are_counted(odd):
    env_id, _ = odd(seen=Box(-1, 1, (WIDTH,)), show=lambda env: np.full(WIDTH, 1.5 if env.time in (2, 5) else 0.5))
    with pytest.warns(DataWarning, match=r"6 of 21 observations of .* outside of its own .*first: episode 0, step 2"):
        collect(env_id, ["random"], 3, 0.0, seed=0)


@pytest.mark.parametrize(
    ("spaces", "limit", "message"),
    [
        ({}, None, "it has no time limit; register it with max_episode_steps=N, or give attend collect max_episode_st"),
        ({}, 10**7, "its max_episode_steps=10000000 is more than 1,000,000; give a lower one"),
        ({"actions": MultiDiscrete([3, 2])}, 9, r"its actions must be a Discrete space from 0, .*not MultiDiscrete"),
        ({"actions": MultiBinary(3)}, 9, r"not MultiBinary\(3\)"),
        ({"actions": Discrete(3, start=1)}, 9, r"not Discrete\(3, start=1\)"),
        ({"actions": Box(-(2**40), 2**40, (2,), np.int64)}, 9, r"whole ones up to 2\^24"),
        ({"seen": Dict(a=Box(0, 1, (2,)))}, 9, "it needs states that are vectors, or images of bytes, not Dict"),
        ({"seen": Discrete(5)}, 9, r"not Discrete\(5\)"),
    ],
)
def test_what_cannot_be_played_is_named(odd, spaces, limit, message):
    env_id, _ = odd(limit, **spaces)
    with pytest.raises(ValueError, match=f"{env_id} cannot be played: .*{message}"):
        describe_env(env_id)


# Precision


def clock(env):
    """A time in seconds beside two numbers of chance."""
    return np.array([1.7e9 + env.time, *env.np_random.normal(size=2)])


SECONDS = Box(-np.inf, np.inf, (WIDTH,), np.float64)


@pytest.mark.parametrize("seen", [SECONDS, Box(-np.inf, np.inf, (WIDTH,), np.float32)])
def test_small_differences_of_large_numbers_survive(odd, seen, tmp_path):
    env_id, _ = odd(seen=seen, show=clock)
    write(tmp_path / "some.npz", env_id, collect(env_id, ["random"], 11, 0.0, seed=0)[0])
    assert read(tmp_path / "some.npz")[1].states.dtype == np.float64
    with pytest.warns(DataWarning, match=r"1 of 3 numbers of a state .* \(first: number 0, 1.7e\+09 ± 2\): .*float64"):
        data = loaded(tmp_path / "some.npz")
    spec, batch = data.spec(), data.batch("train", range(data.size("train")))
    assert spec["offset"] == [1.7e9 + 3, 0, 0]
    assert json.loads(json.dumps(spec)) == spec
    normed = (batch["states"][:, 0, 0] - spec["mean"][0]) / spec["std"][0]
    torch.testing.assert_close(normed.unique(), (torch.arange(7.0) - 3) / 2)
    adapter, seeds = untrained(data, target_quantile=0.9), [3, 1]
    shown, predict_last = [], adapter.predict_last
    adapter.predict_last = lambda batch, cache=None: (
        shown.append(batch["states"][0, -1, 0].item()) or predict_last(batch, cache)
    )
    trajectories = rollout(env_id, make_policy(adapter, None, seeds), seeds)
    assert shown == [-3, -2, -1, 0, 1, 2, 3]
    actor = DecisionActor(adapter, seed=3)
    for step in range(STEPS):
        reward = float(trajectories.rewards[0, step - 1]) if step else 0.0
        assert actor.act(trajectories.states[0, step], reward) == trajectories.actions[0, step]
    (explanation,) = explanations(adapter, env_id)
    assert "state (1.7e+09" in explanation.elements[1].note
    moved = untrained(data)
    moved.spec["offset"] = [1.7e9, 0, 0]
    state = fitted(moved, adapter.state_dict(), spec)
    assert state["mean"].tolist() == pytest.approx([3, *adapter.mean.tolist()[1:]], abs=1e-6)


def test_float32_that_has_lost_differences_is_said_and_the_usual_is_left_alone(odd, tmp_path):
    env_id, _ = odd()
    trajectories, _ = collect(env_id, ["random"], 11, 0.0, seed=0)
    write(tmp_path / "some.npz", env_id, trajectories)
    data = loaded(tmp_path / "some.npz")
    assert "offset" not in data.spec()
    assert data.trajectories.states.dtype == np.float32
    trajectories.states[..., 1] = np.round(1000 * trajectories.states[..., 1]) + 1.7e9
    write(tmp_path / "some.npz", env_id, trajectories)
    with pytest.warns(DataWarning, match="1 of 3 numbers of a state .* what that had lost is lost; write .*float64"):
        loaded(tmp_path / "some.npz", env_id="none")


def test_numbers_that_are_hardly_seen_are_said(odd, tmp_path):
    env_id, _ = odd(show=lambda env: np.array([1e-9, 1, 0]) * env.np_random.normal(size=WIDTH))
    write(tmp_path / "some.npz", env_id, collect(env_id, ["random"], 11, 0.0, seed=0)[0])
    with pytest.warns(DataWarning, match=r"1 of 3 numbers of a state vary by less than 1e-5 \(first: number 0, by"):
        loaded(tmp_path / "some.npz")


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_rewards_that_float32_cannot_tell_apart_are_said(odd, kind, tmp_path):
    env_id, _ = odd(reward=lambda env: 1e9 + 40 * env.np_random.normal())
    with pytest.warns(DataWarning, match=r"rewards of .* differ by less than .*\(1e\+09 ± .*\); take|, and are hardly"):
        trajectories, _ = collect(env_id, ["random"], 11, 0.0, seed=0)
    write(tmp_path / "some.npz", env_id, trajectories)
    with np.load(tmp_path / "some.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "some.npz", **arrays | {"rewards": arrays["rewards"].astype(kind)})
    with pytest.warns(DataWarning, match="rewards of .*some.npz differ by less than float32 resolves"):
        read(tmp_path / "some.npz")


@pytest.mark.parametrize("name", ["observations", "rewards"])
def test_numbers_beyond_float32_are_refused(name, odd, tmp_path):
    env_id, _ = odd()
    write(tmp_path / "some.npz", env_id, collect(env_id, ["random"], 5, 0.0, seed=0)[0])
    with np.load(tmp_path / "some.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "some.npz", **arrays | {name: arrays[name].astype(np.float64) * 1e300})
    with pytest.raises(ValueError, match=f"some.npz has {name} of .*, beyond what float32 calculates with; rescale"):
        read(tmp_path / "some.npz")


def test_a_network_sees_what_float32_would_lose(tmp_path):
    weight = np.array([[0.0], [1.0]])
    norm = {"obs_mean": np.array([1.7e9]), "obs_var": np.ones(1), "eps": 0.0, "clip_obs": 9.0}
    np.savez(tmp_path / "net.npz", n_layers=1, act="none", out="argmax", w0=weight, b0=np.zeros(2), **norm)
    network = make_controller(
        str(tmp_path / "net.npz"), "Some-v0", {"state_shape": 1, "num_actions": 2, "max_episode_steps": 9}
    )
    assert network(np.array([[1.7e9 - 2], [1.7e9 + 2]]), 0, []).tolist() == [0, 1]


@torch.no_grad()
def test_numbers_are_embedded_in_float32_under_autocast():
    spec = {
        "max_episode_steps": 29,
        "state_shape": 1,
        "low": [-1.0],
        "high": [1.0],
        "mean": [0.0],
        "std": [1.0],
        "return_scale": 500.0,
    }
    torch.manual_seed(0)
    adapter = Adapter(ModelConfig(dim=24, depth=1, num_heads=3, target_quantile=0.9), PositionConfig(), spec).eval()
    N = 501
    numbers = torch.arange(N, dtype=torch.float32)
    for name in ("returns_to_go", "states", "actions"):
        batch = {
            "returns_to_go": torch.zeros(N, 1),
            "states": torch.zeros(N, 1, 1),
            "actions": torch.zeros(N, 1, 1),
            "timesteps": torch.zeros(N, 1, dtype=torch.long),
        }
        batch[name] = (numbers if name == "returns_to_go" else numbers / N).reshape(batch[name].shape)
        plainly = adapter.tokens(batch).x
        with torch.autocast("cpu", torch.bfloat16):
            tokens = adapter.tokens(batch).x  # (N, 3, C)
            own = adapter.predict_target_return(batch["states"], batch["timesteps"])
            adapter(batch)
        which = ("returns_to_go", "states", "actions").index(name)
        assert len(tokens[:, which].unique(dim=0)) == N
        assert torch.equal(tokens, plainly)
        if name == "states":
            assert own.dtype == torch.float32
            assert len(own.unique()) == N
