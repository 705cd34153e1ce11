"""A trained model at play: less work and the same actions, caches, delayed rewards, behaviour cloning, the actor."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch

from core.config import Mixer, PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.data_warnings import DataWarning
from domains.rl.adapter import Adapter
from domains.rl.agents import CachedPolicy, DecisionActor, ReturnConditionedPolicy, make_policy
from domains.rl.collect import collect
from domains.rl.config import DataConfig, ModelConfig, Source
from domains.rl.data import Data
from domains.rl.evaluate import (
    PREDICTED_TARGET_EPISODES,
    UNCONDITIONED_EPISODES,
    evaluate,
    rank_correlation,
    target_return,
)
from domains.rl.init_from import fitted
from domains.rl.predict import predict, write_gif
from domains.rl.rollout import empty_trajectories, rollout
from domains.rl.training_plots import picture
from domains.rl.trajectories import Trajectories, windows, write
from domains.text.adapter import Adapter as Text
from domains.text.config import ModelConfig as TextConfig
from experiments.compose import compose
from experiments.runs import write_config, write_weights
from experiments.training.init_from import load_init_weights

T, K, S = 23, 7, 5  # steps of the longest episode, context, state width
LENGTHS = np.array([23, 4, 11, 17, 1])
TARGETS = [30.0, -4.0, 0.0, 12.0, 5.0]
SPEC = {
    "max_episode_steps": 29,
    "state_shape": S,
    "low": [-1.0, 0.0],
    "high": [1.0, 3.0],
    "mean": [0.0] * S,
    "std": [1.0] * S,
}
RECURRENT = [Mixer.linear, Mixer.gated_delta, Mixer.convolution, Mixer.recurrence]


def model(mixer=Mixer.softmax, kind=PositionKind.learned, spec=None, **settings):
    torch.manual_seed(0)
    config = ModelConfig(**({"dim": 24, "depth": 2, "num_heads": 3, "mixer": mixer} | settings))
    spec = SPEC | {"context": K, "return_scale": 10.0} | (spec or {})
    adapter = Adapter(config, PositionConfig(kind=kind), spec).eval()
    with torch.no_grad():
        for p in adapter.parameters():  # an untrained model is nearly blind to what came before
            p.add_(0.2 * torch.randn_like(p))
    return adapter


def episodes():
    """Five episodes of different lengths, made up."""
    rng, N = np.random.default_rng(3), len(LENGTHS)
    return Trajectories(
        states=rng.normal(size=(N, T, S)).astype(np.float32),
        actions=rng.uniform((-1, 0), (1, 3), size=(N, T, 2)).astype(np.float32),
        rewards=rng.normal(size=(N, T)).astype(np.float32),
        lengths=LENGTHS,
        terminated=np.ones(N, bool),
        truncated=np.zeros(N, bool),
    )


@torch.inference_mode()
def said(agent, trajectories):
    """(N, T, 2): what an agent says at each step of episodes that someone else plays; those that are over leave."""
    out = np.full(trajectories.actions.shape, np.nan, np.float32)
    for step in range(T):
        active = np.flatnonzero(trajectories.lengths > step)
        out[active, step] = agent.predict(trajectories, active, step)
    return out


@torch.inference_mode()
def whole(adapter, trajectories):
    """The same of a model that sees each whole episode."""
    N = len(trajectories.lengths)
    to_go = trajectories.returns_to_go(np.array(TARGETS, np.float32))
    out = adapter(windows(trajectories, to_go, np.arange(N), np.zeros(N, int), T)).numpy()
    return np.where(trajectories.step_mask[..., None], out, np.nan)


def same(one, two):
    return np.nanmax(np.abs(one - two)) < 1e-5


# Less work


@torch.inference_mode()
@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("kind", ["learned", "sinusoidal", "rotary", "alibi", "relative", "none"])
def test_the_last_action_takes_no_more_than_its_own_token(kind, returns):
    adapter, trajectories = model(kind=PositionKind(kind), return_conditioned=returns), episodes()
    batch = windows(trajectories, trajectories.returns_to_go(), np.array([0, 3, 2]), np.array([9, 2, 4]), K)
    want = adapter(batch)[:, -1]
    torch.testing.assert_close(adapter.predict_last(batch), want, rtol=1e-4, atol=1e-5)
    blind = batch | {"actions": batch["actions"].clone()}
    blind["actions"][:, -1] = 0.5  # it is not chosen yet
    torch.testing.assert_close(adapter.predict_last(blind), want, rtol=1e-4, atol=1e-5)
    other = batch | {"states": batch["states"] + 1}
    assert (adapter.predict_last(other) - want).abs().max() > 0.01


@torch.inference_mode()
@pytest.mark.parametrize("mixer", [Mixer.window, *RECURRENT])
def test_it_is_the_same_for_every_mixer(mixer):
    adapter, trajectories = model(mixer, window=4), episodes()
    batch = windows(trajectories, trajectories.returns_to_go(), np.array([0, 3]), np.array([9, 2]), K)
    torch.testing.assert_close(adapter.predict_last(batch), adapter(batch)[:, -1], rtol=1e-4, atol=1e-5)


# Caches


def test_softmax_remembers_exactly_until_the_context_is_full():
    adapter, trajectories = model(), episodes()
    exact = said(ReturnConditionedPolicy(adapter, TARGETS, range(5)), trajectories)
    cached = said(CachedPolicy(adapter, TARGETS, range(5)), trajectories)
    assert same(exact[:, :K], cached[:, :K])
    assert np.nanmax(np.abs(exact - cached)[:, K:]) > 1e-3  # as its name says, it is another model from there on
    assert np.array_equal(np.isnan(cached[..., 0]), ~trajectories.step_mask)


def test_a_context_as_long_as_the_episode_is_always_exact():
    adapter, trajectories = model(spec={"context": T}), episodes()
    cached = said(CachedPolicy(adapter, TARGETS, range(5)), trajectories)
    assert same(cached, said(ReturnConditionedPolicy(adapter, TARGETS, range(5)), trajectories))
    assert same(cached, whole(adapter, trajectories))


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("mixer", [Mixer.window, *RECURRENT])
def test_a_band_or_a_state_is_always_exact(mixer, returns):
    adapter, trajectories = model(mixer, window=8, return_conditioned=returns), episodes()
    cached = said(CachedPolicy(adapter, TARGETS, range(5)), trajectories)
    assert same(cached, whole(adapter, trajectories))


def test_a_band_within_the_context_is_what_recomputing_it_gives():
    adapter, trajectories = model(Mixer.window, window=9), episodes()  # 2 · 9 <= 3 · 6 + 1
    cached = said(CachedPolicy(adapter, TARGETS, range(5)), trajectories)
    assert same(cached, said(ReturnConditionedPolicy(adapter, TARGETS, range(5)), trajectories))
    wide = model(Mixer.window, window=12)
    cached = said(CachedPolicy(wide, TARGETS, range(5)), trajectories)
    assert not same(cached, said(ReturnConditionedPolicy(wide, TARGETS, range(5)), trajectories))


def test_a_context_of_one_step_has_nothing_to_remember():
    with pytest.raises(ValueError, match=r"data.kv_cache=true needs data.context >= 2"):
        CachedPolicy(model(spec={"context": 1}), TARGETS, range(5))


@pytest.mark.parametrize("kv_cache", [False, True])
@pytest.mark.parametrize("mixer", [Mixer.softmax, Mixer.window])
def test_an_episode_is_the_same_alone(kv_cache, mixer):
    adapter, seeds = cartpole(kv_cache=kv_cache, mixer=mixer), [3, 1, 4, 1, 5]
    agent = make_policy(adapter, TARGETS, seeds)
    assert type(agent) is (CachedPolicy if kv_cache else ReturnConditionedPolicy)
    together = rollout("CartPole-v1", agent, seeds)
    assert len(set(together.lengths.tolist())) > 2
    assert together.lengths.max() > K
    for n, seed in enumerate(seeds):
        alone = rollout("CartPole-v1", make_policy(adapter, TARGETS[n : n + 1], [seed]), [seed])
        assert alone.lengths[0] == together.lengths[n]
        assert np.array_equal(alone.actions[0], together.actions[n])


# Returns


def cartpole(mixer=Mixer.softmax, depth=2, return_conditioned=True, **more):
    """An untrained player, as blind as its data."""
    spec = {
        "env_id": "CartPole-v1",
        "max_episode_steps": 500,
        "state_shape": 4,
        "num_actions": 2,
        "mean": [0.0] * 4,
        "std": [1.0] * 4,
    }
    spec |= {"context": K, "return_scale": 500.0, "best_return": 40.0} | more
    torch.manual_seed(0)
    config = ModelConfig(dim=12, depth=depth, num_heads=3, mixer=mixer, window=8, return_conditioned=return_conditioned)
    return Adapter(config, PositionConfig(), spec).eval()


@pytest.mark.parametrize(("delayed", "left"), [(False, [90, 89, 88, 87]), (True, [90, 90, 90, 90])])
def test_delayed_rewards_take_nothing_off_the_target(delayed, left, monkeypatch):
    agent, seen = make_policy(cartpole(delayed=delayed), [90.0], [1]), []
    last = agent.last_steps
    monkeypatch.setattr(agent, "last_steps", lambda *where: seen.append(last(*where)) or seen[-1])
    rollout("CartPole-v1", agent, [1])
    assert [batch["returns_to_go"][0, -1].item() for batch in seen[:4]] == left


def test_a_low_temperature_leaves_little_to_chance():
    seeds, taken = list(range(40)), {}
    for temperature in (1e-3, 1.0):
        agent = make_policy(cartpole(temperature=temperature), [90.0] * 40, seeds)
        trajectories = empty_trajectories(40, agent.adapter.spec)
        trajectories.states[:] = 0.1
        taken[temperature] = agent(trajectories, np.arange(40), 0)
    assert len(set(taken[1e-3])) == 1  # all see the same
    assert 8 < taken[1.0].sum() < 32


@torch.inference_mode()
def test_behaviour_cloning_is_blind_to_returns():
    cloner, asked, trajectories = model(return_conditioned=False), model(), episodes()
    batch = windows(trajectories, trajectories.returns_to_go(), np.arange(2), np.zeros(2, int), K)
    richer = batch | {"returns_to_go": batch["returns_to_go"] + 50}
    assert torch.equal(cloner(batch), cloner(richer))
    assert not torch.allclose(asked(batch), asked(richer), atol=1e-3)
    assert "embed_return" not in {name.split(".")[0] for name in cloner.state_dict()}
    later = batch | {"states": batch["states"].clone()}
    later["states"][:, 3:] += 1
    torch.testing.assert_close(cloner(later)[:, :3], cloner(batch)[:, :3])
    assert (cloner(later)[:, 3:] - cloner(batch)[:, 3:]).abs().amin((0, 2)).min() > 0


# The actor


@pytest.mark.parametrize("kv_cache", [False, True])
def test_the_actor_plays_what_the_rollout_plays(kv_cache):
    adapter = cartpole(kv_cache=kv_cache)
    trajectories = rollout("CartPole-v1", make_policy(adapter, [60.0], [8]), [8])
    actor = DecisionActor(adapter, 60.0, seed=8)
    for seed in (8, 8):
        actor.reset(seed)
        for step in range(trajectories.lengths[0]):
            reward = float(trajectories.rewards[0, step - 1]) if step else 0.0
            assert actor.act(trajectories.states[0, step], reward) == trajectories.actions[0, step]
    assert trajectories.lengths[0] > K


def test_the_actor_refuses_what_it_cannot_see():
    actor = DecisionActor(cartpole(max_episode_steps=2), 60.0)
    with pytest.raises(ValueError, match=r"an observation has the shape \(4,\), got \(3,\)"):
        actor.act(np.zeros(3))
    with pytest.raises(ValueError, match=r"at step 0 the observation \[ ?0\. .*nan\] or the reward 0.0 is not finite"):
        actor.act(np.array([0, 0, 0, np.nan]))
    for _ in range(2):
        actor.act(np.zeros(4))
    with pytest.raises(ValueError, match=r"no step after 2; begin the next episode by reset"):
        actor.act(np.zeros(4))


# The own target


def hopeful(kv_cache=False, **more):
    spec = cartpole(kv_cache=kv_cache, **more).spec
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=12, depth=1, num_heads=3, target_quantile=0.8), PositionConfig(), spec).eval()


def lottery(B=97, seed=0):
    """Windows whose returns are 100 times a throw of chance, more by 50 where the first number of the state is 1."""
    rng = torch.Generator().manual_seed(seed)
    lucky = torch.randint(2, (B, K), generator=rng).float()
    states = torch.cat([lucky[..., None], torch.randn(B, K, 3, generator=rng)], -1)
    real = torch.arange(K) < torch.randint(1, K + 1, (B, 1), generator=rng)
    returns = 50 * lucky + 100 * torch.rand(B, K, generator=rng)
    return {
        "returns_to_go": torch.where(real, returns, 1e6),  # padding is not looked at
        "states": states,
        "actions": torch.randint(2, (B, K), generator=rng),
        "timesteps": torch.arange(K).expand(B, -1),
        "step_mask": real,
    }


def test_the_own_target_is_a_quantile_of_the_returns_from_a_state():
    adapter = hopeful()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    for step in range(300):
        batch = lottery(seed=step)
        loss = mean_loss(adapter.loss(torch.zeros(97, K, 2), batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = lottery(B=997, seed=1000)
    assert adapter.metric_names == ("accuracy", "loss", "reached")
    reached = adapter.metrics(adapter(held_out), held_out)["reached"]
    assert reached.shape == (held_out["step_mask"].sum(),)
    assert reached.mean().item() == pytest.approx(0.2, abs=0.04)
    lucky, target = (
        held_out["states"][..., 0] == 1,
        adapter.predict_target_return(held_out["states"], held_out["timesteps"]),
    )
    assert target[lucky].mean().item() == pytest.approx(130, abs=8)
    assert target[~lucky].mean().item() == pytest.approx(80, abs=8)


def test_actions_are_learnt_as_without_an_own_target():
    with_own, without, batch = hopeful(), cartpole(depth=1), lottery()
    assert with_own.return_head is not None
    losses = [mean_loss(adapter.loss(adapter(batch), batch)) for adapter in (with_own, without)]
    for loss in losses:
        loss.backward()
    assert losses[0] > losses[1]
    other = dict(without.named_parameters())
    for name, parameter in with_own.named_parameters():
        assert parameter.grad is not None
        if name.startswith("return_head."):
            assert parameter.grad.abs().max() > 0
        else:
            torch.testing.assert_close(parameter.grad, other[name].grad, rtol=0, atol=0)


@pytest.mark.parametrize("kv_cache", [False, True])
def test_who_names_no_target_gets_what_the_model_predicts_in_the_first_state(kv_cache):
    adapter, seeds = hopeful(kv_cache=kv_cache), [8, 3, 5]
    agent = make_policy(adapter, None, seeds)
    trajectories = rollout("CartPole-v1", agent, seeds)
    first = torch.from_numpy(trajectories.states[:, :1])
    want = adapter.predict_target_return(first, torch.zeros(3, 1, dtype=torch.long))[:, 0].tolist()
    assert agent.targets.tolist() == pytest.approx(want)
    assert len(set(want)) == 3
    named = rollout("CartPole-v1", make_policy(adapter, want, seeds), seeds)
    assert np.array_equal(named.actions, trajectories.actions)
    actor = DecisionActor(adapter, seed=8)
    for step in range(trajectories.lengths[0]):
        assert actor.act(trajectories.states[0, step], 1.0) == trajectories.actions[0, step]


def test_a_run_that_predicts_no_target_says_so_and_behaviour_cloning_needs_none():
    with pytest.raises(ValueError, match=r"no return to ask for: give a target, .* \(40\), or .*target_quantile=0.9"):
        DecisionActor(cartpole())
    cloner = cartpole(return_conditioned=False)
    assert DecisionActor(cloner).act(np.zeros(4)) == DecisionActor(cloner, 30.0).act(np.zeros(4))


@pytest.mark.parametrize("settings", [{"target_quantile": 1.0}, {"target_quantile": 0.9, "return_conditioned": False}])
def test_a_quantile_that_means_nothing_is_refused(settings):
    with pytest.raises(
        ValueError, match=r"target_quantile=.* between 0 and 1, such as 0.9, and needs model.return_conditioned=true"
    ):
        model(**settings)


def test_evaluation_tells_of_the_own_target(files, tmp_path):
    adapter, data = trained_on(files / "CartPole-v1.npz", target_quantile=0.9)
    last = adapter.get_submodule("return_head.2")
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.constant_(last.bias, 70 / adapter.spec["return_scale"])
    torch.nn.init.zeros_(last.weight)
    evaluation = evaluate(adapter, data, tmp_path)
    own, score = evaluation.metrics["predicted_target"], evaluation.scores[-1]
    assert own["target"] == pytest.approx(70)
    assert (own["episodes"], own["mean"]) == (PREDICTED_TARGET_EPISODES, own["steps"])
    assert (score.metric, score.value) == ("return at its own target (70 on average)", own["mean"])
    assert 0 <= evaluation.metrics["reached"] <= 1


# Going on from another run


@torch.inference_mode()
def test_a_start_means_the_same_by_the_same_returns(files, tmp_path):
    adapter, data = trained_on(files / "CartPole-v1.npz", target_quantile=0.9)
    spec = adapter.spec | {"mean": [1.0] * 4, "std": [2.0] * 4, "return_scale": 7 * adapter.spec["return_scale"]}
    config = ModelConfig(dim=12, depth=1, num_heads=3, target_quantile=0.9)
    batch = data.batch("train", range(13))
    for env_id, same in (("CartPole-v1", True), ("Acrobot-v1", False)):
        other = Adapter(config, PositionConfig(), spec | {"env_id": env_id}).eval()
        state = fitted(other, adapter.state_dict(), adapter.spec)
        other.load_state_dict(state, strict=False)
        assert torch.allclose(other(batch), adapter(batch), atol=1e-5) == same
        own = other.predict_target_return(batch["states"], batch["timesteps"])
        assert (
            torch.allclose(own, adapter.predict_target_return(batch["states"], batch["timesteps"]), rtol=1e-4) == same
        )


def test_of_another_domain_the_core_alone_is_taken(tmp_path):
    spec = {"context": 13, "vocab_size": 31, "ngram_orders": [], "ngram_text": ""}
    text = Text(TextConfig(dim=12, num_heads=3, depth=2), PositionConfig(), spec)
    write_config(tmp_path, compose("config", ["domain=text"]), spec)
    write_weights(tmp_path, text.state_dict())
    adapter = cartpole()
    said = load_init_weights(adapter, "domains.rl", tmp_path)
    assert said.startswith("taken: transformer.blocks, transformer.norm; anew: action_head, embed_action")
    weight = "transformer.blocks.1.mixer.qkv.weight"
    assert torch.equal(adapter.state_dict()[weight], text.state_dict()[weight])


# Evaluation and prediction


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of CartPole and one of Pendulum."""
    folder = tmp_path_factory.mktemp("files")
    for env in ("CartPole-v1", "Pendulum-v1"):
        write(folder / f"{env}.npz", env, collect(env, ["random"], 11, 0.0, seed=0)[0])
    return folder


def trained_on(path, return_conditioned=True, target_quantile=None, **settings):
    data = Data(DataConfig(source=Source.trajectories, path=str(path), context=K, **settings))
    data.setup()
    torch.manual_seed(0)
    config = ModelConfig(
        dim=12, depth=1, num_heads=3, return_conditioned=return_conditioned, target_quantile=target_quantile
    )
    return Adapter(config, PositionConfig(), data.spec()).eval(), data


@pytest.mark.parametrize(("env", "metric"), [("CartPole-v1", "action accuracy"), ("Pendulum-v1", "action error")])
def test_without_an_environment_actions_are_judged(env, metric, files, tmp_path):
    adapter, data = trained_on(files / f"{env}.npz", env_id="none")
    evaluation = evaluate(adapter, data, tmp_path)
    (score,) = evaluation.scores
    assert score.metric.startswith(metric)
    train, taken = (
        data.trajectories.actions[n][data.trajectories.step_mask[n]]
        for n in (data.splits["train"], data.splits["test"])
    )
    if env == "CartPole-v1":
        assert score.baseline_value == (taken == (train.mean() > 0.5)).mean()
    else:
        missed = np.abs(taken - train.mean()).mean() / (train.max() - train.min())
        assert score.baseline_value == pytest.approx(missed, rel=1e-4)
    assert score.value == evaluation.metrics[adapter.metric_names[0]]
    assert not (tmp_path / "episodes.csv").exists()
    with pytest.raises(ValueError, match="there is nothing to play"):
        predict(adapter, env, tmp_path)


def test_behaviour_cloning_is_asked_for_nothing(files, tmp_path):
    adapter, data = trained_on(files / "CartPole-v1.npz", return_conditioned=False)
    evaluation = evaluate(adapter, data, tmp_path)
    (score,) = evaluation.scores
    assert (score.metric, score.baseline) == ("return", "data mean")
    achieved = evaluation.metrics["achieved"]
    assert achieved["episodes"] == UNCONDITIONED_EPISODES
    assert achieved["mean"] == score.value == achieved["steps"]
    assert achieved["normalised"] == pytest.approx(100 * (score.value - 23.3) / (500 - 23.3))
    assert json.loads(predict(adapter, "CartPole-v1", tmp_path / "p")[1].read_text())["target_return"] is None


@pytest.mark.parametrize("returns", [True, False])
def test_training_can_be_watched(returns, files, tmp_path):
    adapter, data = trained_on(files / "CartPole-v1.npz", return_conditioned=returns)
    for step in (10, 20):
        picture(adapter, data, tmp_path / f"step_{step:06d}.png")
    with open(tmp_path / "returns.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = adapter.spec["best_return"]
    asked = [part * best for part in (0.2, 0.5, 1.0)] if returns else [best]
    assert [float(row["target"]) for row in rows] == pytest.approx(asked * 2)
    assert {row["picture"] for row in rows} == {"step_000010", "step_000020"}
    assert all(float(row["return"]) >= 1 for row in rows)
    assert len(list(tmp_path.glob("*.png"))) == 2
    blind, data = trained_on(files / "CartPole-v1.npz", return_conditioned=returns, env_id="none")
    with pytest.raises(ValueError, match="plot_every_n_steps plays the environment, and there is none"):
        picture(blind, data, tmp_path / "step_000030.png")


def test_targets_of_costs_lie_between_bad_and_best():
    costs, gains = np.array([-900.0, *[-500.0] * 8, -100.0]), np.arange(11.0)
    assert [target_return(part, costs, -100.0) for part in (0.0, 0.5, 1.0)] == pytest.approx([-540, -320, -100])
    assert [target_return(part, gains, 10.0) for part in (0.0, 0.5, 1.0)] == [0, 5, 10]


def test_ranks_are_correlated():
    asked = np.array([1.0, 2.0, 3.0, 9.0])
    assert rank_correlation(asked, asked**3) == pytest.approx(1)
    assert rank_correlation(asked, -asked) == pytest.approx(-1)
    assert rank_correlation(asked, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)  # 1 - 6 · 2 / (4 · 15)
    assert rank_correlation(asked, np.array([1.0, 1.0, 2.0, 3.0])) == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert rank_correlation(asked, np.ones(4)) is None


def test_what_does_not_rise_with_anything_is_still_json(tmp_path):
    write(tmp_path / "file.npz", "KeyToDoor-v0", collect("KeyToDoor-v0", ["random"], 7, 0.0, seed=0)[0])
    with pytest.warns(DataWarning, match="all 5 episodes to train on have the return 0: nothing can be asked for"):
        adapter, data = trained_on(tmp_path / "file.npz")
    assert adapter.spec["best_return"] == 0  # so that every target is the same
    metrics = evaluate(adapter, data, tmp_path).metrics
    assert json.loads(json.dumps(metrics, allow_nan=False))["rank_correlation"] is None


def test_what_cannot_be_drawn_is_left_out(tmp_path, monkeypatch):
    def no_screen(*_):
        raise RuntimeError("no screen")

    monkeypatch.setattr("domains.rl.predict.replay", no_screen)
    with pytest.warns(UserWarning, match=r"episode.gif is left out: CartPole-v1 cannot be drawn here \(no screen\)$"):
        assert write_gif(tmp_path / "episode.gif", "CartPole-v1", 0, np.zeros(3)) == []
    assert not list(tmp_path.iterdir())


def test_hopper_is_drawn_without_a_screen_or_says_so(tmp_path):
    pytest.importorskip("mujoco", reason="needs the extra mujoco")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        film = write_gif(tmp_path / "episode.gif", "Hopper-v5", 0, np.zeros((4, 3), np.float32))
    said = " ".join(str(warning.message) for warning in caught)
    assert film == [tmp_path / "episode.gif"] or "MUJOCO_GL=egl" in said
