"""The rl domain through its public doors: collection, windows, the model, rollouts, evaluate, predict."""

import csv
import json

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from core.cache import KVCache
from core.config import PositionConfig, PositionKind
from domains.config import OptimizerConfig
from domains.optimizers import make_optimizer
from domains.rl.adapter import Adapter
from domains.rl.collect import collect
from domains.rl.config import DataConfig, ModelConfig, Source
from domains.rl.data import Data
from domains.rl.evaluate import EPISODES, evaluate
from domains.rl.predict import predict
from domains.rl.rollout import ReturnConditioned, rollout
from domains.sampling import StepDataset

CONTEXT = 7


def make(seed=0, episodes=41):
    data = Data(DataConfig(episodes=episodes, context=CONTEXT, batch_size=13), seed)
    data.setup()
    return data


def untrained(spec, kind=PositionKind.learned):
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=12, depth=2, heads=3), PositionConfig(kind=kind), spec).eval()


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def trained():
    """A model that has seen enough to do better when asked for more, and its data."""
    torch.manual_seed(0)
    data = make(episodes=151)
    adapter = Adapter(ModelConfig(dim=32, depth=1, heads=2), PositionConfig(), data.spec())
    optimizer = make_optimizer(adapter, OptimizerConfig(lr=1e-2))
    steps = StepDataset(data.size("train"), 64, 0, data._train_batch)
    for step in range(200):
        batch = steps[step]
        loss = adapter.loss(adapter(batch), batch)
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
    played = collect(Source.cartpole, 151, seed=3)
    assert played.returns.min() < 30
    assert played.returns.max() == 500
    counts, _ = np.histogram(played.returns, bins=[0, 50, 100, 200, 300, 400, 501])
    assert (counts >= 3).all()


def test_episodes_end_for_one_reason_and_the_time_limit_is_no_failure(data):
    played = data.played
    assert (played.terminated ^ played.truncated).all()
    assert (played.lengths[played.truncated] == 500).all()
    assert (played.lengths[played.terminated] <= 500).all()
    assert played.truncated.any()
    assert played.terminated.any()


def test_recorded_actions_replay_to_the_recorded_states():
    seeds = [11, 5]
    actions = np.random.default_rng(0).integers(0, 2, (2, 500))
    played = rollout("CartPole-v1", lambda played, running, step: actions[running, step], seeds)
    env = gymnasium.make("CartPole-v1")
    for n, seed in enumerate(seeds):
        state, _ = env.reset(seed=seed)
        for step in range(played.lengths[n]):
            assert np.array_equal(state, played.states[n, step])
            state, reward, terminated, _, _ = env.step(actions[n, step])
            assert reward == played.rewards[n, step]
            assert terminated == (step == played.lengths[n] - 1)
    env.close()


def test_returns_to_go_count_down_to_the_last_reward(data):
    to_go = data.played.returns_to_go()
    for n, length in enumerate(data.played.lengths):
        assert to_go[n, :length].tolist() == list(range(length, 0, -1))  # every step is worth 1
    assert (data.played.returns_to_go(np.full(41, 90.0))[:, 3] == 87).all()


def test_splits_share_no_episode_and_leave_none_out(data):
    splits = [set(data.splits[s].tolist()) for s in ("train", "val", "test")]
    assert [len(s) for s in splits] == [33, 4, 4]
    assert set.union(*splits) == set(range(41))


def test_collection_depends_on_the_seed_alone_and_happens_once(data):
    again, other = make(), make(seed=1)
    assert np.array_equal(again.played.states, data.played.states)
    assert not np.array_equal(other.played.states[:, 0], data.played.states[:, 0])
    before = again.played
    again.setup()
    assert again.played is before


def test_every_training_step_is_the_start_of_one_window(data):
    assert data.size("train") == data.played.lengths[data.splits["train"]].sum()


def test_every_held_out_step_counts_once(data):
    for split in ("val", "test"):
        real = sum(int(batch["real"].sum()) for batch in data.eval_dataloader(split))
        assert real == data.played.lengths[data.splits[split]].sum()


def test_a_window_shows_consecutive_steps_of_one_episode(data):
    batch = data.batch("train", range(0, data.size("train"), 17))
    B = len(batch["real"])
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes == {
        "returns": (B, CONTEXT),
        "states": (B, CONTEXT, 4),
        "actions": (B, CONTEXT),
        "steps": (B, CONTEXT),
        "real": (B, CONTEXT),
    }
    real, total = batch["real"], batch["returns"] + batch["steps"]
    assert real[:, 0].all()
    assert not real.all()  # some windows reach over the end of their episode
    assert (real[:, 1:] <= real[:, :-1]).all()  # padding is at the right
    assert (total == total[:, :1])[real].all()  # rewards of 1: what is to come and what has been make the return
    assert (batch["steps"].diff(dim=1) == 1)[real[:, 1:]].all()


def test_training_batches_are_a_function_of_the_step(data):
    one, two = (StepDataset(data.size("train"), 13, 5, data._train_batch)[29] for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = StepDataset(data.size("train"), 13, 6, data._train_batch)[29]
    assert not torch.equal(one["states"], other["states"])


def test_the_spec_is_plain_and_holds_the_statistics_of_the_training_episodes(data):
    spec = data.spec()
    assert json.loads(json.dumps(spec)) == spec
    assert (spec["environment"], spec["limit"], spec["states"], spec["actions"]) == ("CartPole-v1", 500, 4, 2)
    batch = data.batch("train", range(data.size("train")))
    first = batch["states"][:, 0]  # each training step once
    torch.testing.assert_close(torch.tensor(spec["mean"]), first.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.tensor(spec["std"]), first.std(0, correction=0), rtol=1e-3, atol=1e-4)
    assert spec["best_return"] == batch["returns"].max()


@pytest.mark.parametrize(("name", "value"), [("episodes", 2), ("context", 0)])
def test_data_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"data.{name}={value}"):
        Data(DataConfig(**{name: value})).setup()


# The model


def random_batch(B=5, K=CONTEXT, first=19):
    rng = np.random.default_rng(2)
    return {
        "returns": torch.from_numpy(rng.uniform(0, 500, (B, K)).astype(np.float32)),
        "states": torch.from_numpy(rng.normal(size=(B, K, 4)).astype(np.float32)),
        "actions": torch.from_numpy(rng.integers(0, 2, (B, K))),
        "steps": first + torch.arange(K).expand(B, K),
        "real": torch.ones(B, K, dtype=torch.bool),
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
    for name in ("returns", "states", "actions"):
        after = adapter(changed(batch, name, step))
        seen = step + 1 if name == "actions" else step  # an action is not seen by its own prediction
        torch.testing.assert_close(after[:, :seen], before[:, :seen], rtol=0, atol=0)
        assert not torch.allclose(after[:, seen:], before[:, seen:], atol=1e-5)


def test_padding_moves_neither_predictions_nor_loss_nor_measures(data):
    adapter, batch = untrained(data.spec()), random_batch()
    batch["real"][:, 5:] = False
    other = changed(changed(changed(batch, "returns", 5), "states", 5), "actions", 5)
    other["steps"] = other["steps"].clone()
    other["steps"][:, 5:] = 0
    one, two = adapter(batch), adapter(other)
    torch.testing.assert_close(one[:, :5], two[:, :5], rtol=0, atol=0)
    assert not torch.allclose(one[:, 5:], two[:, 5:], atol=1e-5)
    assert adapter.loss(one, batch) == adapter.loss(two, other)
    for name, values in adapter.measure(one, batch).items():
        assert values.shape == (25,)
        assert torch.equal(values, adapter.measure(two, other)[name])
    exact = torch.nn.functional.cross_entropy(one[:, :5].flatten(0, 1), batch["actions"][:, :5].flatten())
    torch.testing.assert_close(adapter.loss(one, batch), exact)


def test_the_time_step_in_the_episode_matters_and_the_place_in_the_window_does_not(data):
    adapter, batch = untrained(data.spec()), random_batch()
    later = adapter(batch | {"steps": batch["steps"] + 100})
    assert not torch.allclose(later, adapter(batch), atol=1e-5)
    with pytest.raises(ValueError, match="outside of the 500"):
        adapter(batch | {"steps": batch["steps"] + 490})


def test_a_cache_changes_nothing(data):
    adapter, batch = untrained(data.spec()), random_batch()
    cache = KVCache(depth=2, capacity=3 * CONTEXT)
    parts = []
    for piece in (slice(0, 3), slice(3, 4), slice(4, CONTEXT)):
        parts.append(adapter({name: tensor[:, piece] for name, tensor in batch.items()}, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), adapter(batch), rtol=1e-4, atol=1e-5)


# Rollouts


def test_an_episode_is_the_same_in_any_company(trained):
    adapter, _ = trained
    targets, seeds = [30.0, 140.0, 490.0, 60.0, 60.0], [3, 1, 4, 1, 5]
    together = rollout("CartPole-v1", ReturnConditioned(adapter, targets, seeds), seeds)
    for n, (target, seed) in enumerate(zip(targets, seeds, strict=True)):
        alone = rollout("CartPole-v1", ReturnConditioned(adapter, [target], [seed]), [seed])
        assert alone.lengths[0] == together.lengths[n]
        assert np.array_equal(alone.actions[0], together.actions[n])
        assert np.array_equal(alone.states[0], together.states[n])
    assert len(set(together.lengths.tolist())) > 2  # they ended one after another


def test_the_agent_sees_the_last_steps_and_what_is_left_of_its_target(data):
    adapter, seen = untrained(data.spec()), []
    adapter.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    played = rollout("CartPole-v1", ReturnConditioned(adapter, [200.0], [6]), [6])
    assert len(seen) == played.lengths[0] > CONTEXT
    for step, batch in enumerate(seen):
        first = max(0, step + 1 - CONTEXT)
        assert batch["steps"][0].tolist() == list(range(first, step + 1))
        assert batch["returns"][0].tolist() == [200.0 - t for t in range(first, step + 1)]
        assert np.array_equal(batch["states"][0], played.states[0, first : step + 1])
        assert np.array_equal(batch["actions"][0, :-1], played.actions[0, first:step])


@pytest.mark.parametrize("env", ["Pendulum-v1", "FrozenLake-v1"])
def test_environments_of_another_kind_are_refused(env):
    with pytest.raises(ValueError, match=f"{env} cannot be played"):
        rollout(env, lambda played, running, step: np.zeros(len(running), int), [0])


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
        assert score.baseline_value == pytest.approx(trained[1].played.returns[trained[1].splits["train"]].mean())
    assert 0.5 < evaluation.measures["accuracy"] < 1
    assert evaluation.figures == [folder / "returns.png"]
    with Image.open(folder / "returns.png") as picture:
        assert min(picture.size) > 500


def test_predict_plays_and_shows_the_environment(trained, tmp_path, capfd):
    adapter, _ = trained
    paths = predict(adapter, "CartPole-v1", tmp_path / "new")
    assert [p.name for p in paths] == ["episodes.csv", "summary.json", "episode.gif"]
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
