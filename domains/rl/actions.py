"""The action spaces: discrete actions, or vectors within bounds.

Shapes: n steps, or * any leading dimensions · A number of actions, or width of one · C token width
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Discrete(nn.Module):
    """One of A actions, numbered from 0: predicted as logits, trained by cross-entropy, sampled.

    Sampled actions (as in the Atari experiments of Chen et al. 2021) include the mistakes that go with a return; the
    most likely action at every step leaves them out, and so overshoots a low target.

    Args:
        count: A.
    """

    metric_names = ("accuracy", "loss")
    shape, dtype = (), np.int64  # of an action

    def __init__(self, count: int):
        super().__init__()
        self.width = count

    def make_embedding(self, dim: int) -> nn.Module:
        return nn.Embedding(self.width, dim)

    def normalize(self, actions: Tensor) -> Tensor:
        """Return actions as the embedding takes them."""
        return actions

    def denormalize(self, predictions: Tensor) -> Tensor:
        """Return the model's last A features as predictions: logits."""
        return predictions

    def loss(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Return the cross-entropy, (*), of predictions (*, A) and actions (*)."""
        return F.cross_entropy(predictions.flatten(0, -2), actions.flatten(), reduction="none").view(actions.shape)

    def metrics(self, predictions: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Return `metric_names`, (n,) each: whether the most likely action is the one taken, and the loss."""
        return {
            "accuracy": (predictions.argmax(-1) == actions).float(),
            "loss": self.loss(predictions, actions),
        }

    def sample(self, predictions: Tensor, rngs: Sequence[np.random.Generator], temperature: float = 1.0) -> np.ndarray:
        """Sample n actions from logits (n, A), each by its own generator; a low temperature is closer to the argmax."""
        chances = (predictions.double() / temperature).softmax(-1).cpu().numpy()
        draws = np.array([rng.random() for rng in rngs])
        return np.minimum((chances.cumsum(-1) < draws[:, None]).sum(-1), self.width - 1)


class Box(nn.Module):
    """A vector of A numbers, each within its own bounds; the model sees them normalized to [-1, 1].

        a = low + (high - low) (tanh(W h + b) + 1) / 2;  loss = mean squared error of normalized actions

    Source: the Gym experiments of Chen et al. 2021, where all bounds are ±1.

    Args:
        low, high: (A,), in the units of the environment.
    Raises:
        ValueError: for bounds that are not finite, have different lengths, or are empty.
    """

    metric_names = ("error", "loss")
    dtype = np.float32

    def __init__(self, low: Sequence[float], high: Sequence[float]):
        super().__init__()
        self.width, self.shape = len(low), (len(low),)
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32), persistent=False)
        paired = self.low.dim() == 1 and self.low.shape == self.high.shape and self.width > 0
        if not (paired and (self.high > self.low).all() and (self.high - self.low).isfinite().all()):
            raise ValueError(
                f"actions need as many finite bounds low < high as an action has numbers, got low={low}, high={high}"
            )

    def make_embedding(self, dim: int) -> nn.Module:
        return nn.Linear(self.width, dim)

    def normalize(self, actions: Tensor) -> Tensor:
        """Return actions (*, A) scaled to [-1, 1]: low is -1, high is 1."""
        return (2 * actions - self.low - self.high) / (self.high - self.low)

    def denormalize(self, predictions: Tensor) -> Tensor:
        """Return the model's last A features (*, A) as actions in the units of the environment."""
        part = (predictions.to(self.low.dtype).tanh() + 1) / 2
        return torch.lerp(self.low, self.high, part)  # never beyond a bound, not even by rounding

    def loss(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Return the mean squared error, (*), of predictions and actions, (*, A) each, both normalized."""
        return (self.normalize(predictions) - self.normalize(actions)).square().mean(-1)

    def metrics(self, predictions: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Return `metric_names`, (n,) each: the absolute error as a share of the range, from 0 to 1, and the loss."""
        missed = self.normalize(predictions) - self.normalize(actions)  # (n, A)
        return {"error": missed.abs().mean(-1) / 2, "loss": self.loss(predictions, actions)}

    def sample(self, predictions: Tensor, rngs: Sequence[np.random.Generator], temperature: float = 1.0) -> np.ndarray:
        """Return the predictions (n, A) themselves: vector actions are deterministic at any temperature."""
        return predictions.float().cpu().numpy()


def make_actions(spec: dict[str, Any]) -> Discrete | Box:
    """Return the action space that a spec describes.

    Raises:
        ValueError: if the spec has neither "num_actions" nor the bounds "low" and "high".
    """
    match spec:
        case {"num_actions": count}:
            return Discrete(count)
        case {"low": low, "high": high}:
            return Box(low, high)
    raise ValueError(f"actions are given by 'num_actions', or by 'low' and 'high', and there is only {', '.join(spec)}")
