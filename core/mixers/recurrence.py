"""What attention replaced: a recurrent network that reads the tokens in order.

Shapes: B batch · L tokens · C width
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.cache import State
from core.mixers.visible import visible


class Recurrence(nn.Module):
    """torch's GRU (Cho et al. 2014) as a token mixer.

    Without a causal mask it reads both ways with the same weights, and the two readings are averaged.

    Args:
        dim: token width C.
        bias: add trained constants.
    """

    def __init__(self, dim: int, *, bias: bool = True):
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: Float[Tensor, "B L C"], *, mask, bias=None, rotation=None, cache: State | None = None, probe=None
    ) -> Float[Tensor, "B L C"]:
        causal, valid = visible("recurrence", mask, x.shape[0], x.shape[1] + (cache.length if cache else 0), bias)
        if causal:
            before = cache.tensors[0] if cache is not None and cache.tensors else None
            y, last = self.gru(x, None if before is None else before.transpose(0, 1))
            if cache is not None:
                cache.keep(x.shape[1], last.transpose(0, 1))  # (B, 1, C): batch first
            return self.out(y)
        if valid is not None:
            x = x * valid[..., None]
            flip = _flipped(valid)
        else:
            flip = torch.arange(x.shape[1] - 1, -1, -1, device=x.device).expand(x.shape[:2])
        forward, backward = self.gru(x)[0], self.gru(_taken(x, flip))[0]
        return self.out((forward + _taken(backward, flip)) / 2)


def _flipped(valid: Tensor) -> Tensor:
    """(B, L): where each token goes when the valid ones, at the left, are read from the right; padding stays."""
    at = torch.arange(valid.shape[1], device=valid.device)
    return torch.where(valid, valid.sum(1, keepdim=True) - 1 - at, at)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand_as(x))
