"""Models of Stable-Baselines3, of random weights: what they do, and what our networks do with their weights."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from domains.rl.environments import describe_env
from domains.rl.policies import make_controller

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sb3 = pytest.importorskip("stable_baselines3", reason="pip install stable-baselines3 to compare with it")

NARROW = {"net_arch": [7, 5], "activation_fn": nn.ReLU}


@pytest.mark.parametrize(
    ("algorithm", "env", "settings"),
    [
        ("PPO", "CartPole-v1", {}),
        ("PPO", "Pendulum-v1", {"policy_kwargs": NARROW}),
        ("PPO", "Pendulum-v1", {"use_sde": True}),
        ("PPO", "Pendulum-v1", {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
        ("A2C", "Acrobot-v1", {"policy_kwargs": NARROW}),
        ("DQN", "CartPole-v1", {"buffer_size": 10}),
        ("SAC", "Pendulum-v1", {"buffer_size": 10}),
        ("SAC", "Pendulum-v1", {"buffer_size": 10, "use_sde": True}),
        ("TD3", "Pendulum-v1", {"buffer_size": 10, "policy_kwargs": NARROW}),
        ("DDPG", "Pendulum-v1", {"buffer_size": 10}),
    ],
)
def test_the_same_actions(algorithm, env, settings, tmp_path):
    theirs = getattr(sb3, algorithm)("MlpPolicy", env, seed=0, device="cpu", **settings)
    with torch.no_grad():
        for p in theirs.policy.parameters():  # an untrained one does the same everywhere
            p.add_(0.1 * torch.randn_like(p))
    theirs.save(tmp_path / "model.zip")
    ours = make_controller(str(tmp_path / "model.zip"), env, describe_env(env))
    spaces = gymnasium.make(env)
    states = 3 * np.random.default_rng(0).normal(size=(50, *(spaces.observation_space.shape or ()))).astype(np.float32)
    spaces.close()
    want, _ = theirs.predict(states, deterministic=True)
    np.testing.assert_allclose(ours(states, 0, []), want, atol=1e-5)
    assert len(np.unique(want)) > 1
