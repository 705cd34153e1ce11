"""Policies of a trained decision transformer: for a batch of episodes, or for one that the caller steps.

Shapes: N episodes · n active episodes · K context, in time steps · A width of an action
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.cache import Cache, WindowCache
from core.config import Mixer
from domains.adapter import Batch, to_device
from domains.rl.adapter import Adapter
from domains.rl.rollout import empty_trajectories
from domains.rl.trajectories import Trajectories, subtract_offset, windows


class ReturnConditionedPolicy:
    """The policy of a decision transformer conditioned on a target return (`domains.rl.rollout.Policy`).

    It recomputes the last K steps at every step, with the return-to-go that is left of the target. Discrete actions are
    sampled, vectors are the prediction itself (`domains.rl.actions`).

    Args:
        adapter: the trained model; its `spec` has the context K, the sampling temperature, and whether rewards are
            delayed: then the return-to-go stays at the target to the end.
        targets: (N,), the target return of each episode; None for what the model predicts in the first state.
            Behaviour cloning ignores it.
        seeds: (N,), for sampling in each episode.
    Raises:
        ValueError: if there is no target and the model has no return head.
    """

    def __init__(self, adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]):
        self.adapter, self.context = adapter.eval(), adapter.spec["context"]
        self.delayed, self.temperature = adapter.spec.get("delayed", False), adapter.spec.get("temperature", 1.0)
        self.uses_predicted_return = targets is None and adapter.config.return_conditioned
        if self.uses_predicted_return and adapter.return_head is None:
            raise ValueError(
                "this run predicts no return to ask for: give a target, such as the best return in its data"
                f" ({adapter.spec['best_return']:g}), or train it with model.target_quantile=0.9"
            )
        self.targets = np.zeros(len(seeds), np.float32) if targets is None else np.asarray(targets, np.float32)
        self.rngs = [np.random.default_rng((int(seed), 1)) for seed in seeds]

    @torch.inference_mode()
    def __call__(self, trajectories: Trajectories, active: np.ndarray, step: int) -> np.ndarray:
        predictions = self.predict(trajectories, active, step)  # (n, A)
        return self.adapter.actions.sample(predictions, [self.rngs[n] for n in active], self.temperature)

    def predict(self, trajectories: Trajectories, active: np.ndarray, step: int) -> Tensor:
        return self.adapter.predict_last(self.last_steps(min(step + 1, self.context), trajectories, active, step))

    def last_steps(self, count: int, trajectories: Trajectories, active: np.ndarray, step: int) -> Batch:
        """Return the last `count` steps of the active episodes as a batch."""
        if self.uses_predicted_return and step == 0:
            first = subtract_offset(trajectories.states[active, :1], self.adapter.spec.get("offset"))  # (n, 1, S)
            first = torch.from_numpy(first).to(self.adapter.device)
            start = torch.zeros(len(active), 1, dtype=torch.long, device=first.device)
            self.targets[active] = self.adapter.predict_target_return(first, start)[:, 0].float().cpu().numpy()
        returns_to_go, first = (
            trajectories.returns_to_go(self.targets, delayed=self.delayed),
            np.full(len(active), step + 1 - count),
        )
        batch = windows(trajectories, returns_to_go, active, first, count, self.adapter.spec.get("offset"))
        return to_device(batch, self.adapter.device)


class CachedPolicy(ReturnConditionedPolicy):
    """The same policy with a KV cache: each step computes three tokens, not 3 K.

    The predictions are those of a model that sees the whole episode through its mixer. With mixer=window, or a
    recurrent mixer, that is exactly the model. With mixer=softmax only the last K steps are cached: exact while t < K;
    after that the cached keys and values depend on steps that have left the window, and actions differ from those of
    `ReturnConditionedPolicy`, which recomputes the window.

    With mixer=window both agree at every step if the receptive field fits into the context:
    depth · window <= 3 (K - 1) + 1 tokens.
    """

    def __init__(self, adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]):
        super().__init__(adapter, targets, seeds)
        self.cache, self.cached_episodes = make_cache(adapter), np.arange(len(seeds))

    def predict(self, trajectories: Trajectories, active: np.ndarray, step: int) -> Tensor:
        if self.cache.length and len(active) < len(self.cached_episodes):  # drop episodes that are over
            kept = np.searchsorted(self.cached_episodes, active)
            self.cache.reorder(torch.from_numpy(kept).to(self.adapter.device))
        self.cached_episodes = active
        return self.adapter.predict_last(self.last_steps(min(step + 1, 2), trajectories, active, step), self.cache)


def make_cache(adapter: Adapter) -> Cache:
    """Return an empty cache for a model; with softmax, of the last K - 1 steps.

    Raises:
        ValueError: for softmax with a context of one step, which has nothing to cache.
    """
    config, context = adapter.config, adapter.spec["context"]
    if config.mixer is Mixer.softmax:
        if context < 2:
            raise ValueError("data.kv_cache=true needs data.context >= 2; with 1 there is nothing to cache")
        return WindowCache(config.depth, adapter.tokens_per_step * (context - 1) - 1)
    return adapter.transformer.make_cache(adapter.tokens_per_step * adapter.spec["max_episode_steps"])


def make_policy(adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]) -> ReturnConditionedPolicy:
    """Return a policy of the model, with a KV cache if its spec says so (data.kv_cache)."""
    return (CachedPolicy if adapter.spec.get("kv_cache", False) else ReturnConditionedPolicy)(adapter, targets, seeds)


class DecisionActor:
    """An agent for one episode, for a program that steps the environment itself.

        actor = DecisionActor(adapter, target=500)
        action = actor.act(observation)                     # the first step
        action = actor.act(observation, last_reward)        # every later step

    Args:
        adapter: the trained model.
        target: the target return; None for what the model predicts (model.target_quantile).
        seed: for sampling discrete actions.
    Raises:
        ValueError: if there is no target and the model has no return head.
    """

    def __init__(self, adapter: Adapter, target: float | None = None, seed: int = 0):
        self.adapter, self.target = adapter, target
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Start the next episode."""
        self.trajectories, self.step = empty_trajectories(1, self.adapter.spec, exact="offset" in self.adapter.spec), 0
        self.agent = make_policy(self.adapter, None if self.target is None else [self.target], [seed])

    def act(self, observation: np.ndarray, last_reward: float = 0.0) -> np.ndarray | int:
        """Return the action for an observation; `last_reward` is the reward of the previous action.

        Raises:
            ValueError: for an observation of another shape, values that are not finite, or a step beyond the model's
                max_episode_steps.
        """
        trajectories, step = self.trajectories, self.step
        limit, shape = trajectories.states.shape[1], trajectories.states.shape[2:]
        if np.shape(observation) != shape:
            raise ValueError(f"an observation has the shape {shape}, got {np.shape(observation)}")
        if not np.isfinite(observation).all() or not np.isfinite(last_reward):
            raise ValueError(f"at step {step} the observation {observation} or the reward {last_reward} is not finite")
        if step == limit:
            raise ValueError(f"the model knows no step after {limit}; begin the next episode by reset()")
        trajectories.states[0, step], trajectories.lengths[0] = observation, step + 1
        if step:
            trajectories.rewards[0, step - 1] = last_reward
        action = trajectories.actions[0, step] = self.agent(trajectories, np.array([0]), step)[0]
        self.step += 1
        return action if np.ndim(action) else int(action)
