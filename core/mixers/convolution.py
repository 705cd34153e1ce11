"""A convolution over neighbouring tokens.

Shapes: B batch · L tokens · C width · K kernel size
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.cache import State
from core.mixers.mask_utils import causal_and_padding


class Convolution(nn.Module):
    """A gated depthwise convolution: out(σ(gate x) ⊙ conv(value x)) (Dauphin et al. 2017, Wu et al. 2019).

    Under a causal mask the kernel lies behind each token, otherwise around it.

    Args:
        dim: token width C.
        kernel: tokens K that an output sees, odd.
        linear_bias: add trained constants.
    """

    def __init__(self, dim: int, kernel: int = 7, *, linear_bias: bool = True):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"a convolution needs an odd kernel, got {kernel}")
        self.kernel = kernel
        self.split = nn.Linear(dim, 2 * dim, bias=linear_bias)
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim, bias=linear_bias)
        self.out = nn.Linear(dim, dim, bias=linear_bias)

    def make_cache(self, capacity: int) -> State:
        return State()

    def forward(
        self, x: Float[Tensor, "B L C"], *, mask, bias=None, cache: State | None = None, **_
    ) -> Float[Tensor, "B L C"]:
        causal, valid = causal_and_padding("convolution", x, mask, bias, cache)
        gate, value = self.split(x).chunk(2, dim=-1)  # (B, L, C) each
        if valid is not None:
            value = value * valid[..., None]
        value = value.mT  # (B, C, L)
        before, after = (self.kernel - 1, 0) if causal else (self.kernel // 2, self.kernel // 2)
        if cache is not None and cache.tensors:
            value = torch.cat([cache.tensors[0], value], -1)
        else:
            value = F.pad(value, (before, after))
        if cache is not None:
            cache.keep(x.shape[1], value[..., value.shape[-1] - before :])
        return self.out(gate.sigmoid() * self.conv(value).mT)
