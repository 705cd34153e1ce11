"""A recurrent network that reads the tokens in order.

Shapes: B batch · L tokens · C width
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.cache import State
from core.mixers.mask_utils import causal_and_padding


class Recurrence(nn.Module):
    """torch's GRU (Cho et al. 2014) as a token mixer.

    Without a causal mask it reads both ways with the same weights, and the two readings are averaged.

    Args:
        dim: token width C.
        linear_bias: add trained constants.
    """

    def __init__(self, dim: int, *, linear_bias: bool = True):
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True, bias=linear_bias)
        self.out = nn.Linear(dim, dim, bias=linear_bias)

    def make_cache(self, capacity: int) -> State:
        return State()

    def forward(
        self, x: Float[Tensor, "B L C"], *, mask, bias=None, cache: State | None = None, **_
    ) -> Float[Tensor, "B L C"]:
        causal, valid = causal_and_padding("recurrence", x, mask, bias, cache)
        if causal:
            y, last = self.read(x, valid, cache.tensors[0] if cache is not None and cache.tensors else None)
            if cache is not None:
                cache.keep(x.shape[1], last)
            return self.out(y)
        forward = self.read(x, valid)[0]
        backward = self.read(x.flip(1), None if valid is None else valid.flip(1))[0].flip(1)
        return self.out((forward + backward) / 2)

    def read(self, x: Tensor, valid: Tensor | None, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output of the GRU at each token, (B, L, C), and its state after the last real token, (B, 1, C).

        Args:
            x: tokens (B, L, C).
            valid: which of them are real, (B, L); all if None. The others change nothing, at any position.
            before: the state that came before, (B, 1, C); zeros if None.
        """
        start = x.new_zeros(len(x), 1, x.shape[2]) if before is None else before
        if valid is None:
            y, last = self.gru(x, start.transpose(0, 1).contiguous())
            return y, last.transpose(0, 1)
        order = (~valid).long().argsort(dim=1, stable=True)  # (B, L): those that are there first, as they came
        y = self.gru(_taken(x.masked_fill(~valid[..., None], 0.0), order), start.transpose(0, 1).contiguous())[0]
        last = _taken(torch.cat([start, y], 1), valid.sum(1, keepdim=True))  # (B, 1, C)
        return _taken(y, order.argsort(1)), last


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """(B, L, C) and (B, N) -> (B, N, C): of each batch entry the tokens of these numbers."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
