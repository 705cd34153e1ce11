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
from domains.rl.states import ImageToToken


class Adapter(DomainAdapter):
    """Acting as sequence modelling: given the return that is still to come, which action did the data take?

        R_0 s_0 a_0  R_1 s_1 a_1  …        a_t is predicted from the token of s_t

    The three tokens of a time step share its position. Without returns (`config.returns`) only s and a are there: that
    is behaviour cloning. Source: Chen et al. 2021, with the states and the actions of its Gym experiments or of its
    Atari experiments (`domains.rl.actions`, `domains.rl.states`).

    Args:
        config: sizes and choices.
        position: how tokens know their time step in the episode.
        spec: {"states", "actions", "limit", "mean", "std", "return_scale"} of the data: state width S or the shape of
            an image, number of actions A, the most steps of an episode, statistics of the states (of all pixels
            together), less what `domains.rl.trajectories.windows` took off, and the return that is fed as 1. Actions
            that are vectors have bounds "low" and "high", (A,) each, instead of "actions".
    Raises:
        ValueError: for actions that cannot be, a patch that does not fit, or a quantile that means nothing.
    """

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__()
        self.config, self.spec = config, spec
        self.per_step = 3 if config.returns else 2  # tokens
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(spec["mean"]))
        self.register_buffer("std", torch.tensor(spec["std"]) + 1e-6)
        self.actions = make_actions(spec)
        self.metric_names = self.actions.metric_names + (("reached",) if config.target_quantile is not None else ())
        self.embed_return = nn.Linear(1, config.dim) if config.returns else None
        if isinstance(spec["states"], int):
            self.embed_state = nn.Linear(spec["states"], config.dim)
        else:
            self.embed_state = ImageToToken(spec["states"], config.dim, config.patch_size)
        self.embed_action = self.actions.embedding(config.dim)
        self.transformer = Transformer(config, make_position(position, config, (spec["limit"],)))
        self.act = nn.Linear(config.dim, self.actions.width)
        self.hope = None if config.target_quantile is None else make_hope(config)

    def tokens(self, batch: Batch) -> Tokens:
        s = self._seen(batch["states"])  # (B, K, C)
        a = exactly(self.embed_action, self.actions.inward(batch["actions"]))  # (B, K, C)
        step = [s, a]
        if self.embed_return is not None:
            step = [exactly(self.embed_return, batch["returns"][..., None] / self.spec["return_scale"]), s, a]
        positions = batch["steps"].repeat_interleave(self.per_step, dim=1)[..., None]  # (B, L, 1)
        return Tokens(torch.stack(step, 2).flatten(1, 2), mask=Causal(), positions=positions)  # (B, L, C)

    def _seen(self, states: Tensor) -> Tensor:
        """States (B, K, S) or images to their tokens (B, K, C)."""
        states = (states - self.mean) / self.std
        if isinstance(self.embed_state, ImageToToken):
            return self.embed_state(states)
        return exactly(self.embed_state, states)

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        return self.actions.outward(exactly(self.act, hidden[:, self.per_step - 2 :: self.per_step]))  # (B, K, A)

    def own_target(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to ask for in states (B, K, S), or images, at time steps (B, K): a high return, but one that occurs.

            Q(s, t) = q-quantile of the return-to-go R, by the loss E max(q u, (q - 1) u), u = R - Q(s, t)

        It sees no return, and its gradient ends at the token of the state: actions are learnt as without it. Asking for
        what few in the data exceed is the expert inference of Lee et al. 2022, who tilt a distribution that they
        predict; the loss is that of Koenker and Bassett 1978.

        Returns:
            (B, K), in the units of the returns.
        """
        assert self.hope is not None
        s = self._seen(states).detach()  # (B, K, C)
        time = steps[..., None] / self.spec["limit"]  # (B, K, 1)
        return self.spec["return_scale"] * exactly(self.hope, torch.cat([s, time.to(s.dtype)], -1))[..., 0]

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        real, q = batch["real"], self.config.target_quantile
        predictions = torch.where(real[..., None], predictions, 0.0)  # no gradient, and no NaN, of padding
        terms = [self.actions.loss(predictions, batch["actions"])]  # (B, K) each
        if q is not None:
            missed = (batch["returns"] - self.own_target(batch["states"], batch["steps"])) / self.spec["return_scale"]
            terms.append(torch.maximum(q * missed, (q - 1) * missed))
        return Loss.joined([Loss.of(torch.where(real, term, 0.0).sum(), real.sum()) for term in terms])

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What `metric_names` of the actions says; and "reached", whether the data's return reached the own target."""
        real = batch["real"]
        measured = self.actions.metrics(predictions[real], batch["actions"][real])
        if self.hope is not None:
            target = self.own_target(batch["states"], batch["steps"])
            measured["reached"] = (batch["returns"] >= target)[real].float()
        return measured

    def latest(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """What `self(batch)[:, -1]` is, (B, A), by less work.

        The action to be chosen is no token yet, and the last block is computed for one token alone.

        Args:
            batch: the last steps of some episodes, none of them padding; with a cache, two (one at the start).
            cache: what came before, up to the state of the step before the last.
        """
        tokens = self.tokens(batch)
        assert tokens.positions is not None
        new = slice(self.per_step - 1 if cache is not None and cache.length else 0, -1)
        x, positions = tokens.x[:, new], tokens.positions[:, new]
        hidden = self.transformer(x, positions=positions, mask=tokens.mask, cache=cache, last=1)[:, 0]  # (B, C)
        return self.actions.outward(exactly(self.act, hidden))


def exactly(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x) in the precision of its weights, whatever autocast says: in bfloat16 the 501 returns of CartPole would
    be 379. Numbers alone need that; an embedding table looks up whole ones, which stay so."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(next(layer.parameters()).dtype) if x.is_floating_point() else x)


def make_hope(config: ModelConfig) -> nn.Module:
    """The head of `Adapter.own_target`: (*, C + 1), a state's token and the time, to (*, 1)."""
    if not config.returns or not 0 < (config.target_quantile or 0) < 1:
        raise ValueError(
            f"model.target_quantile={config.target_quantile} must lie between 0 and 1, such as 0.9, and needs"
            " model.returns=true: behaviour cloning is asked for nothing"
        )
    return nn.Sequential(nn.Linear(config.dim + 1, config.dim), nn.GELU(), nn.Linear(config.dim, 1))
