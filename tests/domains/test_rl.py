"""The rl domain through its public doors: collection, windows, the model, rollouts, evaluate, predict."""

import csv
import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import PendulumEnv
from PIL import Image, ImageSequence

from core.cache import KVCache
from core.config import PositionConfig, PositionKind
from domains.adapter import mean_loss, mean_metrics
from domains.rl.adapter import Adapter
from domains.rl.agents import ReturnConditionedPolicy
from domains.rl.cartpole import collect_cartpole
from domains.rl.config import DataConfig, ModelConfig
from domains.rl.data import Data
from domains.rl.environments import describe_env
from domains.rl.evaluate import EPISODES, evaluate
from domains.rl.predict import predict
from domains.rl.rollout import rollout
from domains.rl.trajectories import windows
from domains.sampling import StepDataset
from experiments.config import OptimizerConfig
from experiments.training.optimizers import make_optimizer

CONTEXT = 7
LOW, HIGH = [-2.0, 5.0, -0.5], [6.0, 8.0, -0.25]


@pytest.fixture(scope="module")
def swing():
    """swing() -> the id of a Pendulum of 20 steps, with its own actions or those of another space."""
    registered = []

    def register(action_space=None):
        def make(**options):
            env = PendulumEnv(**options)
            env.action_space = action_space or env.action_space
            return env

        env_id = f"Swing{len(registered)}-v0"
        gymnasium.register(env_id, make, max_episode_steps=20)
        registered.append(env_id)
        return env_id

    yield register
    for env_id in registered:
        del gymnasium.registry[env_id]


def make(seed=0, episodes=41):
    data = Data(DataConfig(episodes=episodes, context=CONTEXT, batch_size=13), seed)
    data.setup()
    return data


def untrained(spec, kind=PositionKind.learned):
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=12, depth=2, num_heads=3), PositionConfig(kind=kind), spec).eval()


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def trained():
    """A model that has seen enough to do better when asked for more, and its data."""
    torch.manual_seed(0)
    data = make(episodes=151)
    adapter = Adapter(ModelConfig(dim=32, depth=1, num_heads=2), PositionConfig(), data.spec())
    optimizer = make_optimizer(adapter, OptimizerConfig(lr=1e-2))
    steps = StepDataset(data.size("train"), 64, 0, data._train_batch)
    for step in range(200):
        batch = steps[step]
        loss = mean_loss(adapter.loss(adapter(batch), batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adapter.eval(), data


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "new"
    adapter, data = trained
    return evaluate(adapter, data, folder), folder


# Collection and data


def test_episodes_of_every_skill_are_collected():
    trajectories = collect_cartpole(151, seed=3)
    assert trajectories.returns.min() < 30
    assert trajectories.returns.max() == 500
    counts, _ = np.histogram(trajectories.returns, bins=[0, 50, 100, 200, 300, 400, 501])
    assert (counts >= 3).all()


def test_episodes_end_for_one_reason_and_the_time_limit_is_no_failure(data):
    trajectories = data.trajectories
    assert (trajectories.terminated ^ trajectories.truncated).all()
    assert (trajectories.lengths[trajectories.truncated] == 500).all()
    assert (trajectories.lengths[trajectories.terminated] <= 500).all()
    assert trajectories.truncated.any()
    assert trajectories.terminated.any()


def test_recorded_actions_replay_to_the_recorded_states():
    seeds = [11, 5]
    actions = np.random.default_rng(0).integers(0, 2, (2, 500))
    trajectories = rollout("CartPole-v1", lambda trajectories, active, step: actions[active, step], seeds)
    env = gymnasium.make("CartPole-v1")
    for n, seed in enumerate(seeds):
        state, _ = env.reset(seed=seed)
        for step in range(trajectories.lengths[n]):
            assert np.array_equal(state, trajectories.states[n, step])
            state, reward, terminated, _, _ = env.step(actions[n, step])
            assert reward == trajectories.rewards[n, step]
            assert terminated == (step == trajectories.lengths[n] - 1)
    env.close()


def test_returns_to_go_count_down_to_the_last_reward(data):
    to_go = data.trajectories.returns_to_go()
    for n, length in enumerate(data.trajectories.lengths):
        assert to_go[n, :length].tolist() == list(range(length, 0, -1))  # every step is worth 1
    assert (data.trajectories.returns_to_go(np.full(41, 90.0))[:, 3] == 87).all()


def test_splits_share_no_episode_and_leave_none_out(data):
    splits = [set(data.splits[s].tolist()) for s in ("train", "val", "test")]
    assert [len(s) for s in splits] == [33, 4, 4]
    assert set.union(*splits) == set(range(41))


def test_collection_depends_on_the_seed_alone_and_happens_once(data):
    again, other = make(), make(seed=1)
    assert np.array_equal(again.trajectories.states, data.trajectories.states)
    assert not np.array_equal(other.trajectories.states[:, 0], data.trajectories.states[:, 0])
    before = again.trajectories
    again.setup()
    assert again.trajectories is before


def test_every_training_step_is_the_start_of_one_window(data):
    assert data.size("train") == data.trajectories.lengths[data.splits["train"]].sum()


def test_every_held_out_step_counts_once(data):
    for split in ("val", "test"):
        real = sum(int(batch["step_mask"].sum()) for batch in data.eval_dataloader(split))
        assert real == data.trajectories.lengths[data.splits[split]].sum()


def test_a_window_shows_consecutive_steps_of_one_episode(data):
    batch = data.batch("train", range(0, data.size("train"), 17))
    B = len(batch["step_mask"])
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes == {
        "returns_to_go": (B, CONTEXT),
        "states": (B, CONTEXT, 4),
        "actions": (B, CONTEXT),
        "timesteps": (B, CONTEXT),
        "step_mask": (B, CONTEXT),
    }
    real, total = batch["step_mask"], batch["returns_to_go"] + batch["timesteps"]
    assert real[:, 0].all()
    assert not real.all()  # some windows reach over the end of their episode
    assert (real[:, 1:] <= real[:, :-1]).all()  # padding is at the right
    assert (total == total[:, :1])[real].all()  # rewards of 1: what is to come and what has been make the return
    assert (batch["timesteps"].diff(dim=1) == 1)[real[:, 1:]].all()


def test_training_batches_are_a_function_of_the_step(data):
    one, two = (StepDataset(data.size("train"), 13, 5, data._train_batch)[29] for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = StepDataset(data.size("train"), 13, 6, data._train_batch)[29]
    assert not torch.equal(one["states"], other["states"])


def test_the_spec_is_plain_and_holds_the_statistics_of_the_training_episodes(data):
    spec = data.spec()
    assert json.loads(json.dumps(spec)) == spec
    assert (spec["env_id"], spec["max_episode_steps"], spec["state_shape"], spec["num_actions"]) == (
        "CartPole-v1",
        500,
        4,
        2,
    )
    batch = data.batch("train", range(data.size("train")))
    first = batch["states"][:, 0]  # each training step once
    torch.testing.assert_close(torch.tensor(spec["mean"]), first.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.tensor(spec["std"]), first.std(0, correction=0), rtol=1e-3, atol=1e-4)
    assert spec["best_return"] == batch["returns_to_go"].max()


@pytest.mark.parametrize(("name", "value"), [("episodes", 2), ("context", 0)])
def test_data_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"data.{name}={value}"):
        Data(DataConfig(**{name: value})).setup()


# The model


def random_batch(B=5, K=CONTEXT, first=19):
    rng = np.random.default_rng(2)
    return {
        "returns_to_go": torch.from_numpy(rng.uniform(0, 500, (B, K)).astype(np.float32)),
        "states": torch.from_numpy(rng.normal(size=(B, K, 4)).astype(np.float32)),
        "actions": torch.from_numpy(rng.integers(0, 2, (B, K))),
        "timesteps": first + torch.arange(K).expand(B, K),
        "step_mask": torch.ones(B, K, dtype=torch.bool),
    }


def changed(batch, name, step):
    """The batch with other values in one field from a step on."""
    tensor = batch[name].clone()
    tensor[:, step:] = 1 - tensor[:, step:] if name == "actions" else tensor[:, step:] * 3 + 1
    return batch | {name: tensor}


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "rotary", "none"])
def test_an_action_depends_on_what_came_before_it_alone(data, kind):
    adapter, batch = untrained(data.spec(), PositionKind(kind)), random_batch()
    before, step = adapter(batch), 3
    assert before.shape == (5, CONTEXT, 2)
    for name in ("returns_to_go", "states", "actions"):
        after = adapter(changed(batch, name, step))
        seen = step + 1 if name == "actions" else step  # an action is not seen by its own prediction
        torch.testing.assert_close(after[:, :seen], before[:, :seen], rtol=0, atol=0)
        assert not torch.allclose(after[:, seen:], before[:, seen:], atol=1e-5)


def test_padding_moves_neither_predictions_nor_loss_nor_measures(data):
    adapter, batch = untrained(data.spec()), random_batch()
    batch["step_mask"][:, 5:] = False
    other = changed(changed(changed(batch, "returns_to_go", 5), "states", 5), "actions", 5)
    other["timesteps"] = other["timesteps"].clone()
    other["timesteps"][:, 5:] = 0
    one, two = adapter(batch), adapter(other)
    torch.testing.assert_close(one[:, :5], two[:, :5], rtol=0, atol=0)
    assert not torch.allclose(one[:, 5:], two[:, 5:], atol=1e-5)
    assert mean_loss(adapter.loss(one, batch)) == mean_loss(adapter.loss(two, other))
    for name, values in adapter.metrics(one, batch).items():
        assert values.shape == (25,)
        assert torch.equal(values, adapter.metrics(two, other)[name])
    exact = torch.nn.functional.cross_entropy(one[:, :5].flatten(0, 1), batch["actions"][:, :5].flatten())
    torch.testing.assert_close(mean_loss(adapter.loss(one, batch)), exact)


def test_the_time_step_in_the_episode_matters_and_the_place_in_the_window_does_not(data):
    adapter, batch = untrained(data.spec()), random_batch()
    later = adapter(batch | {"timesteps": batch["timesteps"] + 100})
    assert not torch.allclose(later, adapter(batch), atol=1e-5)
    with pytest.raises(ValueError, match="outside of the 500"):
        adapter(batch | {"timesteps": batch["timesteps"] + 490})


def test_a_cache_changes_nothing(data):
    adapter, batch = untrained(data.spec()), random_batch()
    cache = KVCache(depth=2, capacity=3 * CONTEXT)
    parts = []
    for piece in (slice(0, 3), slice(3, 4), slice(4, CONTEXT)):
        parts.append(adapter({name: tensor[:, piece] for name, tensor in batch.items()}, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), adapter(batch), rtol=1e-4, atol=1e-5)


# Actions that are vectors


def box_spec(low=LOW, high=HIGH, **more):
    statistics = {"mean": [0.0] * 5, "std": [1.0] * 5, "return_scale": 100.0}
    return {"max_episode_steps": 31, "state_shape": 5, "low": low, "high": high, **statistics, **more}


def box_batch(B=11, seed=0):
    """Actions that are some function of the states, within LOW and HIGH."""
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(B, CONTEXT, 5, generator=rng)
    part = (states[..., :3] - states[..., 2:]).sigmoid()  # (B, K, 3)
    return {
        "returns_to_go": torch.zeros(B, CONTEXT),
        "states": states,
        "actions": torch.lerp(torch.tensor(LOW), torch.tensor(HIGH), part),
        "timesteps": torch.arange(CONTEXT).expand(B, -1),
        "step_mask": torch.arange(CONTEXT) < torch.randint(1, CONTEXT + 1, (B, 1), generator=rng),
    }


def test_vectors_are_learnt_and_stay_within_their_bounds():
    adapter = untrained(box_spec())
    optimizer = make_optimizer(adapter, OptimizerConfig(lr=1e-2))
    held_out = [box_batch(seed=1000)]
    before = mean_metrics(adapter, held_out)
    for step in range(150):
        batch = box_batch(seed=step)
        loss = mean_loss(adapter.loss(adapter(batch), batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = mean_metrics(adapter, held_out)
    assert set(after) == set(adapter.metric_names) == {"error", "loss"}
    assert after["loss"] < before["loss"] / 4
    assert after["error"] < 0.1 < before["error"]


def test_bounds_are_reached_and_not_crossed():
    adapter, batch = untrained(box_spec()), box_batch()
    with torch.no_grad():
        adapter.action_head.weight.mul_(1e4)
    predictions = adapter(batch)
    assert predictions.shape == (11, CONTEXT, 3)
    for axis, bounds in enumerate(zip(LOW, HIGH, strict=True)):
        assert {predictions[..., axis].min().item(), predictions[..., axis].max().item()} == set(bounds)


def test_loss_and_measures_count_in_parts_of_the_range():
    adapter, batch = untrained(box_spec()), box_batch(B=1)
    batch |= {"actions": torch.tensor(LOW).expand(1, CONTEXT, 3), "step_mask": torch.arange(CONTEXT)[None] < 2}
    predictions = torch.full((1, CONTEXT, 3), torch.nan)  # what is not real does not count
    predictions[0, 0] = torch.tensor(HIGH)  # all of the range is missed
    predictions[0, 1] = torch.tensor([0.0, 5.0, -0.5])  # a quarter of one range, and nothing of two
    measured = adapter.metrics(predictions, batch)
    torch.testing.assert_close(measured["error"], torch.tensor([1, 1 / 12]))
    torch.testing.assert_close(measured["loss"], torch.tensor([4, 1 / 12]))
    predictions.requires_grad_()
    loss = mean_loss(adapter.loss(predictions, batch))
    torch.testing.assert_close(loss, torch.tensor(49 / 24))
    [gradient] = torch.autograd.grad(loss, predictions)
    assert gradient[0, :2].any()
    assert not gradient[0, 2:].any()


def test_the_units_of_actions_do_not_matter():
    """A model sees the same of actions a in [-1, 1] and of low + (high - low) (a + 1) / 2, and says the same."""
    ours, plain = untrained(box_spec()), untrained(box_spec([-1.0] * 3, [1.0] * 3))
    batch, low, span = box_batch(), torch.tensor(LOW), torch.tensor(HIGH) - torch.tensor(LOW)
    scaled = batch | {"actions": 2 * (batch["actions"] - low) / span - 1}
    one, two = ours(batch), plain(scaled)
    torch.testing.assert_close(one, low + span * (two + 1) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean_loss(ours.loss(one, batch)), mean_loss(plain.loss(two, scaled)))
    after = ours(batch | {"actions": batch["actions"] * torch.tensor([1.0, 1.1, 1.0])})
    assert torch.equal(after[:, 0], one[:, 0])  # no action is seen before it is taken
    assert not torch.allclose(after[:, 1:], one[:, 1:], atol=1e-5)


@pytest.mark.parametrize(
    ("low", "high"),
    [([0.0], [0.0]), ([1.0], [0.0]), ([0.0, 0.0], [1.0]), ([], []), ([0.0], [torch.inf]), ([torch.nan], [1.0])],
)
def test_bounds_that_cannot_be_are_refused(low, high):
    with pytest.raises(ValueError, match="as many finite bounds low < high"):
        untrained(box_spec(low, high))


def test_a_spec_without_actions_is_refused(data):
    spec = {name: value for name, value in data.spec().items() if name != "num_actions"}
    with pytest.raises(
        ValueError, match="by 'num_actions', or by 'low' and 'high', and there is only env_id, max_episode_steps"
    ):
        untrained(spec)


# Rollouts


def swinging(env_id):
    """An untrained model that swings with all its might."""
    more = {"env_id": env_id, "context": CONTEXT, "best_return": -3.0}
    adapter = untrained(box_spec(**describe_env(env_id), mean=[0.0] * 3, std=[1.0] * 3, **more))
    with torch.no_grad():
        adapter.action_head.weight.mul_(5)
    return adapter


def test_an_environment_describes_its_actions(swing):
    assert describe_env("CartPole-v1") == {"max_episode_steps": 500, "state_shape": 4, "num_actions": 2}
    assert describe_env("Pendulum-v1") == {"max_episode_steps": 200, "state_shape": 3, "low": [-2.0], "high": [2.0]}
    space = gymnasium.spaces.Box(np.array(LOW, np.float32), np.array(HIGH, np.float32))
    assert describe_env(swing(space)) == {"max_episode_steps": 20, "state_shape": 3, "low": LOW, "high": HIGH}


def watched(adapter, monkeypatch):
    """What the adapter is shown from here on, and what it says: a list of (batch, predictions)."""
    seen, predict_last = [], adapter.predict_last

    def spy(batch, cache=None):
        seen.append((batch, predict_last(batch, cache)))
        return seen[-1][1]

    monkeypatch.setattr(adapter, "predict_last", spy)
    return seen


def test_vectors_are_played_as_the_model_gives_them(swing, monkeypatch):
    env_id, seeds = swing(), [3, 1, 4]
    adapter = swinging(env_id)
    seen = watched(adapter, monkeypatch)
    trajectories = rollout(env_id, ReturnConditionedPolicy(adapter, [-10.0, -200.0, -900.0], seeds), seeds)
    assert trajectories.actions.shape == (3, 20, 1)
    assert (trajectories.lengths == 20).all()
    assert trajectories.truncated.all()
    assert -2 <= trajectories.actions.min() < -1
    assert 1 < trajectories.actions.max() <= 2
    for step, (batch, output) in enumerate(seen):
        assert np.array_equal(output, trajectories.actions[:, step])
        first = max(0, step + 1 - CONTEXT)
        assert np.array_equal(batch["actions"][:, :-1], trajectories.actions[:, first:step])
    env = gymnasium.make("Pendulum-v1")
    for n, seed in enumerate(seeds):
        state, _ = env.reset(seed=seed)
        for step in range(20):
            assert np.array_equal(state, trajectories.states[n, step])
            state, reward, *_ = env.step(trajectories.actions[n, step])
            assert np.float32(reward) == trajectories.rewards[n, step]
    env.close()


def test_windows_show_vectors(swing):
    env_id, seeds = swing(), [3, 1]
    trajectories = rollout(env_id, ReturnConditionedPolicy(swinging(env_id), [-10.0, -200.0], seeds), seeds)
    batch = windows(trajectories, trajectories.returns_to_go(), np.array([1, 0]), np.array([15, 2]), CONTEXT)
    assert batch["actions"].dtype == torch.float32
    assert batch["step_mask"].sum(1).tolist() == [5, 7]
    assert np.array_equal(batch["actions"][0, :5], trajectories.actions[1, 15:])
    assert np.array_equal(batch["actions"][1], trajectories.actions[0, 2:9])


def test_an_episode_is_the_same_in_any_company(trained):
    adapter, _ = trained
    targets, seeds = [30.0, 140.0, 490.0, 60.0, 60.0], [3, 1, 4, 1, 5]
    together = rollout("CartPole-v1", ReturnConditionedPolicy(adapter, targets, seeds), seeds)
    for n, (target, seed) in enumerate(zip(targets, seeds, strict=True)):
        alone = rollout("CartPole-v1", ReturnConditionedPolicy(adapter, [target], [seed]), [seed])
        assert alone.lengths[0] == together.lengths[n]
        assert np.array_equal(alone.actions[0], together.actions[n])
        assert np.array_equal(alone.states[0], together.states[n])
    assert len(set(together.lengths.tolist())) > 2  # they ended one after another


def test_the_agent_sees_the_last_steps_and_what_is_left_of_its_target(data, monkeypatch):
    adapter = untrained(data.spec())
    seen = watched(adapter, monkeypatch)
    trajectories = rollout("CartPole-v1", ReturnConditionedPolicy(adapter, [200.0], [6]), [6])
    assert len(seen) == trajectories.lengths[0] > CONTEXT
    for step, (batch, _) in enumerate(seen):
        first = max(0, step + 1 - CONTEXT)
        assert batch["timesteps"][0].tolist() == list(range(first, step + 1))
        assert batch["returns_to_go"][0].tolist() == [200.0 - t for t in range(first, step + 1)]
        assert np.array_equal(batch["states"][0], trajectories.states[0, first : step + 1])
        assert np.array_equal(batch["actions"][0, :-1], trajectories.actions[0, first:step])


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Discrete(3, start=1),
        gymnasium.spaces.MultiBinary(3),
        gymnasium.spaces.Box(-np.inf, 1, (3,)),
        gymnasium.spaces.Box(0, 1, (3, 1)),
    ],
)
def test_actions_of_another_kind_are_refused(swing, space):
    env_id = swing(space)
    with pytest.raises(ValueError, match=f"{env_id} cannot be played: its actions must be a Discrete .* or vectors"):
        describe_env(env_id)


def test_states_that_are_no_vectors_are_refused():
    with pytest.raises(
        ValueError,
        match="FrozenLake-v1 cannot be played: it needs states that are vectors, or images of bytes, not Discrete",
    ):
        rollout("FrozenLake-v1", lambda trajectories, active, step: np.zeros(len(active), int), [0])


# Evaluation and prediction


def test_more_is_achieved_when_more_is_asked(evaluated):
    evaluation, _ = evaluated
    low, middle, high = (score.value for score in evaluation.scores)
    assert low < middle < high


def test_evaluate_agrees_with_the_episodes_it_writes(evaluated, trained):
    evaluation, folder = evaluated
    with open(folder / "episodes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(EPISODES.values())
    best = trained[1].spec()["best_return"]
    assert [score.metric for score in evaluation.scores] == [f"return at target {p * best:g}" for p in (0.2, 0.5, 1)]
    for score, part in zip(evaluation.scores, (0.2, 0.5, 1), strict=True):
        returns = [float(row["return"]) for row in rows if float(row["target"]) == part * best]
        assert len(returns) == 20
        assert score.value == pytest.approx(np.mean(returns))
        assert score.baseline_value == pytest.approx(trained[1].trajectories.returns[trained[1].splits["train"]].mean())
    assert 0.5 < evaluation.metrics["accuracy"] < 1
    assert evaluation.figures == [folder / "returns.png"]
    with Image.open(folder / "returns.png") as picture:
        assert min(picture.size) > 500


def test_predict_plays_and_shows_the_environment(trained, tmp_path, capfd):
    adapter, _ = trained
    paths = predict(adapter, "CartPole-v1", tmp_path / "new")
    assert [p.name for p in paths] == ["episodes.csv", "episodes.json", "episode.gif"]
    summary = json.loads(paths[1].read_text())
    with open(paths[0], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(episode["steps"] for episode in summary["episodes"])
    for number, episode in enumerate(summary["episodes"]):
        steps = [row for row in rows if row["episode"] == str(number)]
        assert sum(float(row["reward"]) for row in steps) == episode["return"]
        assert [float(row["return_to_go"]) for row in steps[:2]] == [500, 499]
        assert episode["terminated"] != episode["truncated"]
    assert summary["target_return"] == 500
    with Image.open(paths[2]) as film:
        shown = sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))
    assert shown == 60 * -(-summary["episodes"][0]["steps"] // 3)  # milliseconds; frames that look the same are joined
    assert "pygame" not in "".join(capfd.readouterr())


def test_predict_writes_every_number_of_an_action(swing, tmp_path):
    env_id = swing()
    paths = predict(swinging(env_id), env_id, tmp_path)
    with open(paths[0], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["episode", "step", "return_to_go", "state_0", "state_1", "state_2", "action_0", "reward"]
    assert len(rows) == 100
    assert len({row["action_0"] for row in rows}) > 10
    with Image.open(paths[2]) as film:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(film)) == 100 * 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("MountainCar-v0", "trained on CartPole-v1: give input=CartPole-v1, not 'MountainCar-v0'$"),
        ("MountainCart-v0", "knows no environment of that name .did you mean MountainCar-v0"),
        ("photo.png", "trained on CartPole-v1.*knows no environment"),
    ],
)
def test_predict_refuses_another_environment_and_writes_nothing(trained, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        predict(trained[0], source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
