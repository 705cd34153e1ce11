"""Environments whose states are images: CartPole as it is drawn, and a lamp that must be followed."""

import csv

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import AddRenderObservation, TransformObservation

import domains.rl.evaluate
from core.config import PositionConfig
from domains.adapter import mean_loss
from domains.data_warnings import DataWarning
from domains.rl.adapter import Adapter
from domains.rl.agents import DecisionActor, ReturnConditionedPolicy
from domains.rl.collect import collect
from domains.rl.config import DataConfig, ModelConfig, Source
from domains.rl.data import Data
from domains.rl.environments import describe_env
from domains.rl.evaluate import evaluate
from domains.rl.predict import predict
from domains.rl.rollout import rollout
from domains.rl.states import ImageEmbedding
from domains.rl.trajectories import read, write
from domains.sampling import StepDataset
from experiments.config import OptimizerConfig
from experiments.training.optimizers import make_optimizer

PIXELS, LAMP, STEPS = "CartPolePixels-v0", "Lamp-v0", 2


def drawn(**options):
    """CartPole, seen from afar: 20×30 pixels in three colours."""
    env = AddRenderObservation(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
    return TransformObservation(
        env, lambda image: image[::20, ::20], gymnasium.spaces.Box(0, 255, (20, 30, 3), np.uint8)
    )


class Lamp(gymnasium.Env):
    """A grey image with a light at the left or at the right; who says where gets 1."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (7, 11), np.uint8), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action):
        reward = float(action == self.right)
        return self._show(), reward, False, False, {}

    def _show(self):
        self.right = int(self.np_random.integers(2))
        image = self.np_random.integers(60, 90, (7, 11)).astype(np.uint8)
        image[self.np_random.integers(7), 8 * self.right + self.np_random.integers(3)] = 255
        return image


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register(PIXELS, drawn, max_episode_steps=13)
    gymnasium.register(LAMP, lambda **options: Lamp(), max_episode_steps=STEPS)
    yield
    for env_id in (PIXELS, LAMP):
        del gymnasium.registry[env_id]


def loaded(env, episodes, folder, **settings):
    path = folder / "some.npz"
    write(path, env, collect(env, ["random"], episodes, 0.0, seed=0)[0])
    data = Data(DataConfig(source=Source.trajectories, path=str(path), batch_size=32, **settings))
    data.setup()
    return data


def untrained(spec, patch_size):
    torch.manual_seed(0)
    config = ModelConfig(dim=16, depth=1, num_heads=2, patch_size=patch_size)
    return Adapter(config, PositionConfig(), spec).eval()


def test_cartpole_as_it_is_drawn(tmp_path, monkeypatch):
    assert describe_env(PIXELS) == {"max_episode_steps": 13, "state_shape": [20, 30, 3], "num_actions": 2}
    with pytest.warns(DataWarning, match="all 3 episodes to train on have the return 13"):
        data = loaded(PIXELS, 5, tmp_path, context=3)
    trajectories = read(tmp_path / "some.npz")[1]
    assert trajectories.states.dtype == np.uint8
    assert trajectories.states.shape[2:] == (20, 30, 3)
    assert trajectories.final_states is not None
    assert trajectories.final_states.shape == (5, 20, 30, 3)
    env = gymnasium.make(PIXELS)
    assert trajectories.seeds is not None
    assert np.array_equal(env.reset(seed=int(trajectories.seeds[0]))[0], trajectories.states[0, 0])
    for step in range(trajectories.lengths[0] - 1):
        assert np.array_equal(env.step(trajectories.actions[0, step])[0], trajectories.states[0, step + 1])
    env.close()
    spec = data.spec()
    assert 0 < spec["mean"][0] < 255
    assert len(spec["mean"]) == len(spec["std"]) == 1
    adapter = untrained(spec, patch_size=4)
    batch = data.batch("train", [0, 4])
    assert adapter(batch).shape == (2, 3, 2)
    brighter = batch | {"states": 255 - batch["states"]}
    assert not torch.allclose(adapter(batch), adapter(brighter), atol=1e-4)

    monkeypatch.setattr(domains.rl.evaluate, "EPISODES", {0.2: 1, 0.5: 1, 1.0: 2})
    found = evaluate(adapter, data, tmp_path / "evaluate")
    assert len(found.scores) == 3
    paths = predict(adapter, PIXELS, tmp_path / "predict")
    with open(paths[0], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["episode", "step", "return_to_go", "action", "reward"]
    actor = DecisionActor(adapter, 13)
    assert actor.act(trajectories.states[0, 0]) in (0, 1)
    with pytest.raises(ValueError, match=r"has the shape \(20, 30, 3\), got \(4,\)"):
        actor.act(np.zeros(4))


def test_what_is_seen_is_learnt(tmp_path):
    data = loaded(LAMP, 400, tmp_path, context=2)
    adapter = untrained(data.spec(), patch_size=4)
    optimizer = make_optimizer(adapter.train(), OptimizerConfig(lr=3e-3))
    steps = StepDataset(data.size("train"), 64, 0, data._train_batch)
    for step in range(170):
        batch = steps[step]
        loss = mean_loss(adapter.loss(adapter(batch), batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seeds = list(range(20))
    most, least = (
        rollout(LAMP, ReturnConditionedPolicy(adapter, [target] * 20, seeds), seeds).returns.mean()
        for target in (2.0, 0.0)
    )
    assert most > 1.7
    assert least < 0.3


def test_channels_may_stand_first_or_last_or_not_at_all():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 9, 13, 4)
    last, first = ImageEmbedding((9, 13, 4), 16, 4), ImageEmbedding((4, 9, 13), 16, 4)
    first.load_state_dict(last.state_dict())
    torch.testing.assert_close(first(images.movedim(-1, 2)), last(images))
    assert last(images).shape == (2, 3, 16)
    assert ImageEmbedding((9, 13), 16, 8)(images[..., 0]).shape == (2, 3, 16)


def test_what_does_not_fit_images_is_refused(tmp_path):
    data = loaded(LAMP, 11, tmp_path, context=2)
    with pytest.raises(ValueError, match=r"model.patch_size of 1, 2, 4, 8 … that divides model.dim, got 3"):
        untrained(data.spec(), patch_size=3)
    with pytest.raises(ValueError, match=r"its states have 7×11 pixels and not 4 numbers"):
        Data(DataConfig(source=Source.trajectories, path=data.config.path, env_id="CartPole-v1")).setup()
    np.savez(tmp_path / "net.npz", n_layers=1, act="tanh", out="argmax", w0=np.zeros((2, 77)), b0=np.zeros(2))
    with pytest.raises(ValueError, match=r"takes vectors, and the environment shows images"):
        collect(LAMP, [str(tmp_path / "net.npz")], 3, 0.0, seed=0)
