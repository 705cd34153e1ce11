"""A decision transformer on the shared core.

Shapes: B batch · K time steps · L = 3K tokens · S state width · A number of actions, or width of one · C token width
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.config import PositionConfig
from core.layers import Transformer
from core.masks import Causal
from core.positions import make_position
from domains.adapter import Batch, DomainAdapter, Tokens
from domains.rl.actions import make_actions
from domains.rl.config import ModelConfig


class Adapter(DomainAdapter):
    """Acting as sequence modelling: given the return that is still to come, which action did the data take?

        R_0 s_0 a_0  R_1 s_1 a_1  …        a_t is predicted from the token of s_t

    The three tokens of a time step share its position. Source: Chen et al. 2021, with the vector states of its Gym
    experiments, and the actions of those or of its Atari experiments (`domains.rl.actions`).

    Args:
        config: sizes and choices.
        position: how tokens know their time step in the episode.
        spec: {"states", "actions", "limit", "mean", "std", "return_scale"} of the data: state width S, number of
            actions A, the most steps of an episode, statistics of the states, and the return that is fed as 1. Actions
            that are vectors have bounds "low" and "high", (A,) each, instead of "actions".
    Raises:
        ValueError: for actions that cannot be.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.spec = config, spec
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]))
        self.register_buffer("std", torch.tensor(spec["std"]) + 1e-6)
        self.actions = make_actions(spec)
        self.measures = self.actions.measures
        self.embed_return = nn.Linear(1, config.dim)
        self.embed_state = nn.Linear(spec["states"], config.dim)
        self.embed_action = self.actions.embedding(config.dim)
        self.transformer = Transformer(config, make_position(position, config, (spec["limit"],)))
        self.act = nn.Linear(config.dim, self.actions.width)

    def tokens(self, batch: Batch) -> Tokens:
        R = self.embed_return(batch["returns"][..., None] / self.spec["return_scale"])  # (B, K, C)
        s = self.embed_state((batch["states"] - self.mean) / self.std)  # (B, K, C)
        a = self.embed_action(self.actions.inward(batch["actions"]))  # (B, K, C)
        at = batch["steps"].repeat_interleave(3, dim=1)[..., None]  # (B, L, 1)
        return Tokens(torch.stack([R, s, a], 2).flatten(1, 2), mask=Causal(), at=at)  # (B, L, C)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        return self.actions.outward(self.act(hidden[:, 1::3]))  # (B, K, A), from the state tokens

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        real = batch["real"]
        return self.actions.loss(predictions[real], batch["actions"][real])

    def measure(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        real = batch["real"]
        return self.actions.measure(predictions[real], batch["actions"][real])
