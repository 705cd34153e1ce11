"""A decision transformer on the shared core.

Shapes: B batch · K time steps · L tokens, 3K or 2K · S state width · A number of actions, or width of one
C token width
"""

from typing import Any

import torch
from torch import Tensor, nn

from core.cache import Cache
from core.config import PositionConfig
from core.layers import Transformer
from core.masks import Causal
from core.positions import make_position
from domains.adapter import Batch, DomainAdapter, Loss, Tokens
from domains.rl.actions import make_actions
from domains.rl.config import ModelConfig
from domains.rl.states import ImageEmbedding


class Adapter(DomainAdapter):
    """Decision transformer: predict the action that the data took, given the return that is still to come.

        R_0 s_0 a_0  R_1 s_1 a_1  …        a_t is predicted from the token of s_t

    The three tokens of a time step share its position. Without `config.return_conditioned` there are only s and a:
    behaviour cloning. Source: Chen et al. 2021, with the states and the actions of its Gym or its Atari experiments
    (`domains.rl.actions`, `domains.rl.states`).

    Args:
        config: sizes and choices.
        position: how tokens know their time step in the episode.
        spec: the data's {"state_shape", "num_actions", "max_episode_steps", "mean", "std", "return_scale"}: state width
            S or the shape of an image, number of actions A, maximum length of an episode, mean and deviation of the
            states (of all pixels together) after `domains.rl.trajectories.subtract_offset`, and the return that is fed
            as 1. Vector actions have bounds "low" and "high", (A,) each, instead of "num_actions".
    Raises:
        ValueError: for invalid actions, a patch size that does not fit, or an invalid quantile.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.spec = config, spec
        self.tokens_per_step = 3 if config.return_conditioned else 2  # tokens
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]))
        self.register_buffer("std", torch.tensor(spec["std"]) + 1e-6)
        self.actions = make_actions(spec)
        self.metric_names = self.actions.metric_names + (("reached",) if config.target_quantile is not None else ())
        self.embed_return = nn.Linear(1, config.dim) if config.return_conditioned else None
        if isinstance(spec["state_shape"], int):
            self.embed_state = nn.Linear(spec["state_shape"], config.dim)
        else:
            self.embed_state = ImageEmbedding(spec["state_shape"], config.dim, config.patch_size)
        self.embed_action = self.actions.make_embedding(config.dim)
        self.transformer = Transformer(config, make_position(position, config, (spec["max_episode_steps"],)))
        self.action_head = nn.Linear(config.dim, self.actions.width)
        self.return_head = None if config.target_quantile is None else make_return_head(config)

    def tokens(self, batch: Batch) -> Tokens:
        s = self.embed_states(batch["states"])  # (B, K, C)
        a = without_autocast(self.embed_action, self.actions.normalize(batch["actions"]))  # (B, K, C)
        step = [s, a]
        if self.embed_return is not None:
            step = [
                without_autocast(self.embed_return, batch["returns_to_go"][..., None] / self.spec["return_scale"]),
                s,
                a,
            ]
        positions = batch["timesteps"].repeat_interleave(self.tokens_per_step, dim=1)[..., None]  # (B, L, 1)
        return Tokens(torch.stack(step, 2).flatten(1, 2), mask=Causal(), positions=positions)  # (B, L, C)

    def embed_states(self, states: Tensor) -> Tensor:
        """Return the tokens (B, K, C) of states (B, K, S) or of images."""
        states = (states - self.mean) / self.std
        if isinstance(self.embed_state, ImageEmbedding):
            return self.embed_state(states)
        return without_autocast(self.embed_state, states)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        return self.actions.denormalize(
            without_autocast(self.action_head, hidden[:, self.tokens_per_step - 2 :: self.tokens_per_step])
        )  # (B, K, A)

    def predict_target_return(self, states: Tensor, steps: Tensor) -> Tensor:
        """Return the target return for states (B, K, S), or images, at time steps (B, K): a high one that still occurs.

            Q(s, t) = q-quantile of the return-to-go R, by the loss E max(q u, (q - 1) u), u = R - Q(s, t)

        The head sees no return, and its gradient stops at the state's token, so that it does not change how actions are
        learned. A target that few of the data's returns exceed is the expert inference of Lee et al. 2022, who tilt a
        predicted distribution; the loss is that of Koenker and Bassett 1978.

        Returns:
            (B, K), in the units of the returns.
        """
        assert self.return_head is not None
        s = self.embed_states(states).detach()  # (B, K, C)
        time = steps[..., None] / self.spec["max_episode_steps"]  # (B, K, 1)
        return (
            self.spec["return_scale"] * without_autocast(self.return_head, torch.cat([s, time.to(s.dtype)], -1))[..., 0]
        )

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        step_mask, q = batch["step_mask"], self.config.target_quantile
        predictions = torch.where(step_mask[..., None], predictions, 0.0)  # no gradient and no NaN from padding
        terms = [self.actions.loss(predictions, batch["actions"])]  # (B, K) each
        if q is not None:
            missed = (
                batch["returns_to_go"] - self.predict_target_return(batch["states"], batch["timesteps"])
            ) / self.spec["return_scale"]
            terms.append(torch.maximum(q * missed, (q - 1) * missed))
        return Loss.joined([Loss.of(torch.where(step_mask, term, 0.0).sum(), step_mask.sum()) for term in terms])

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the actions' `metric_names`; and "reached", whether the data's return reached the predicted target."""
        step_mask = batch["step_mask"]
        measured = self.actions.metrics(predictions[step_mask], batch["actions"][step_mask])
        if self.return_head is not None:
            target = self.predict_target_return(batch["states"], batch["timesteps"])
            measured["reached"] = (batch["returns_to_go"] >= target)[step_mask].float()
        return measured

    def predict_last(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """Return `self(batch)[:, -1]`, (B, A), with less computation.

        The last action, still to be chosen, is no token, and the last block computes a single token.

        Args:
            batch: the last steps of some episodes, without padding; with a cache, two steps (one at the start).
            cache: keys and values up to the state of the step before the last.
        """
        tokens = self.tokens(batch)
        assert tokens.positions is not None
        new = slice(self.tokens_per_step - 1 if cache is not None and cache.length else 0, -1)
        x, positions = tokens.x[:, new], tokens.positions[:, new]
        hidden = self.transformer(x, positions=positions, mask=tokens.mask, cache=cache, last=1)[:, 0]  # (B, C)
        return self.actions.denormalize(without_autocast(self.action_head, hidden))


def without_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    """Return layer(x) in the dtype of the layer's weights, even under autocast.

    In bfloat16 the 501 possible returns of CartPole would become 379. An embedding takes integers, which stay integers.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(next(layer.parameters()).dtype) if x.is_floating_point() else x)


def make_return_head(config: ModelConfig) -> nn.Module:
    """Return the head of `Adapter.predict_target_return`: from a state's token and the time, (*, C + 1), to (*, 1)."""
    if not config.return_conditioned or not 0 < (config.target_quantile or 0) < 1:
        raise ValueError(
            f"model.target_quantile={config.target_quantile} must lie between 0 and 1, such as 0.9, and needs"
            " model.return_conditioned=true: behaviour cloning has no target"
        )
    return nn.Sequential(nn.Linear(config.dim + 1, config.dim), nn.GELU(), nn.Linear(config.dim, 1))
