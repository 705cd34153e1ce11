"""A trained decision transformer at play: a whole batch of episodes, or one that is stepped from outside.

Shapes: N episodes · n of them still running · K context, in time steps · A width of an action
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.cache import Cache, WindowCache
from core.config import Mixer
from domains.adapter import Batch, to_device
from domains.rl.adapter import Adapter
from domains.rl.config import Recall
from domains.rl.rollout import nothing_played
from domains.rl.trajectories import Trajectories, shifted, windows


class ReturnConditioned:
    """A decision transformer that is asked for a return (a rollout's Policy).

    It sees the last K steps, computed anew at each, with what is left of the return it was asked for, and acts as it
    predicts: a number is drawn, a vector is taken as it is (`domains.rl.actions`).

    Args:
        adapter: the trained model; its `spec` says what K is, at which temperature numbers are drawn, and whether
            rewards are delayed: what is left of the return is then all of it to the end.
        targets: (N,), the return asked of each episode; None for what the model predicts in its first state. A model
            without returns sees neither.
        seeds: (N,), for the draws of each episode.
    Raises:
        ValueError: if there is no target and the model predicts none.
    """

    def __init__(self, adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]):
        self.adapter, self.context = adapter.eval(), adapter.spec["context"]
        self.delayed, self.temperature = adapter.spec.get("delayed", False), adapter.spec.get("temperature", 1.0)
        self.asks_itself = targets is None and adapter.config.returns
        if self.asks_itself and adapter.hope is None:
            raise ValueError(
                "this run predicts no return to ask for: give a target, such as the best return in its data"
                f" ({adapter.spec['best_return']:g}), or train it with model.target_quantile=0.9"
            )
        self.targets = np.zeros(len(seeds), np.float32) if targets is None else np.asarray(targets, np.float32)
        self.rngs = [np.random.default_rng((int(seed), 1)) for seed in seeds]

    @torch.inference_mode()
    def __call__(self, played: Trajectories, running: np.ndarray, step: int) -> np.ndarray:
        predictions = self.predict(played, running, step)  # (n, A)
        return self.adapter.actions.act(predictions, [self.rngs[n] for n in running], self.temperature)

    def predict(self, played: Trajectories, running: np.ndarray, step: int) -> Tensor:
        return self.adapter.latest(self.last(min(step + 1, self.context), played, running, step))

    def last(self, seen: int, played: Trajectories, running: np.ndarray, step: int) -> Batch:
        """The last `seen` steps of the running episodes, as a batch."""
        if self.asks_itself and step == 0:
            first = shifted(played.states[running, :1], self.adapter.spec.get("offset"))  # (n, 1, S)
            first = torch.from_numpy(first).to(self.adapter.device)
            start = torch.zeros(len(running), 1, dtype=torch.long, device=first.device)
            self.targets[running] = self.adapter.own_target(first, start)[:, 0].float().cpu().numpy()
        to_go, first = played.returns_to_go(self.targets, delayed=self.delayed), np.full(len(running), step + 1 - seen)
        batch = windows(played, to_go, running, first, seen, self.adapter.spec.get("offset"))
        return to_device(batch, self.adapter.device)


class Cached(ReturnConditioned):
    """The same from keys and values that are kept: each step costs three tokens, and not 3 K.

    What comes out is that of a model that sees the whole episode through its mixer. With mixer=window, or one that has
    a state, that is exactly what the model is. With mixer=softmax only the last K steps are kept: exact while t < K;
    after that what is kept has itself seen steps that are out of sight by now, and actions differ from those of
    `ReturnConditioned`, whose window forgets them.

    With mixer=window both agree at every step, if all that a prediction depends on lies in the context:
    depth · window <= 3 (K - 1) + 1 tokens.
    """

    def __init__(self, adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]):
        super().__init__(adapter, targets, seeds)
        self.cache, self.inside = make_cache(adapter), np.arange(len(seeds))

    def predict(self, played: Trajectories, running: np.ndarray, step: int) -> Tensor:
        if self.cache.length and len(running) < len(self.inside):  # what is over leaves
            stay = np.searchsorted(self.inside, running)
            self.cache.reorder(torch.from_numpy(stay).to(self.adapter.device))
        self.inside = running
        return self.adapter.latest(self.last(min(step + 1, 2), played, running, step), self.cache)


def make_cache(adapter: Adapter) -> Cache:
    """What a model's mixer has to remember; for softmax, the steps before the new ones that are in sight.

    Raises:
        ValueError: for softmax over a single step, in which nothing is to be remembered.
    """
    config, context = adapter.config, adapter.spec["context"]
    if config.mixer is Mixer.softmax:
        if context < 2:
            raise ValueError("data.recall=cached needs data.context >= 2; with 1 there is nothing to remember")
        return WindowCache(config.depth, adapter.per_step * (context - 1) - 1)
    return adapter.transformer.make_cache(adapter.per_step * adapter.spec["limit"])


def make_agent(adapter: Adapter, targets: Sequence[float] | None, seeds: Sequence[int]) -> ReturnConditioned:
    """The agent that remembers as the model's spec says (data.recall)."""
    cached = adapter.spec.get("recall") == Recall.cached.value
    return (Cached if cached else ReturnConditioned)(adapter, targets, seeds)


class DecisionActor:
    """One episode, stepped from outside: what a program that owns the environment needs.

        actor = DecisionActor(adapter, target=500)
        action = actor.act(observation)                     # the first step
        action = actor.act(observation, last_reward)        # and every other

    Args:
        adapter: the trained model.
        target: the return asked for; None for what the model itself predicts (model.target_quantile).
        seed: for the draws of numbered actions.
    Raises:
        ValueError: if there is no target and the model predicts none.
    """

    def __init__(self, adapter: Adapter, target: float | None = None, seed: int = 0):
        self.adapter, self.target = adapter, target
        self.reset(seed)

    def reset(self, seed: int = 0) -> None:
        """Forget the episode, and be ready for the next."""
        self.played, self.step = nothing_played(1, self.adapter.spec, exact="offset" in self.adapter.spec), 0
        self.agent = make_agent(self.adapter, None if self.target is None else [self.target], [seed])

    def act(self, observation: np.ndarray, last_reward: float = 0.0) -> np.ndarray | int:
        """The action for what is seen now; `last_reward` is what the action before was worth.

        Raises:
            ValueError: for an observation of another shape or with numbers that are none, or beyond the time limit that
                the model knows.
        """
        played, step = self.played, self.step
        limit, shape = played.states.shape[1], played.states.shape[2:]
        if np.shape(observation) != shape:
            raise ValueError(f"an observation has the shape {shape}, got {np.shape(observation)}")
        if not np.isfinite(observation).all() or not np.isfinite(last_reward):
            raise ValueError(f"at step {step} the observation {observation} or the reward {last_reward} is not finite")
        if step == limit:
            raise ValueError(f"the model knows no step after {limit}; begin the next episode by reset()")
        played.states[0, step], played.lengths[0] = observation, step + 1
        if step:
            played.rewards[0, step - 1] = last_reward
        action = played.actions[0, step] = self.agent(played, np.array([0]), step)[0]
        self.step += 1
        return action if np.ndim(action) else int(action)
