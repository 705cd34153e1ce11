"""Attention that several processes share: each has some of the tokens, or some of the heads.

    ulysses = Ulysses(group)
    out = ulysses(q, k, v, mask=Causal())        # of this process's tokens, over the tokens of all

Shapes: P ranks · B batch · H query heads · G key/value heads · L queries, M keys of the whole sequence · D head width;
* any leading dimensions
"""

from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from core.attention import attend, check, check_bias
from core.bias import Bias, LowRankBias, PairBias, SumBias
from core.masks import Mask, NoMask


class Ulysses:
    """`core.attention.attend` for tokens spread over P ranks, in order: rank r holds the r-th of P equal slices.

        (*, H, L/P, D) -> (*, H/P, L, D)  ->  attend  ->  (*, H/P, L, D) -> (*, H, L/P, D)

    An all-to-all trades heads for tokens, so that every rank attends with its share of the heads over the whole
    sequence, by whatever kernel fits; a second one trades back. A rank sends no more than its own slices of q, k, v and
    the output, however many ranks there are.

    Gradients are those of the sum of all ranks' losses: of q, k and v the slices of this rank; of the bias, which every
    rank holds whole, the whole, summed over the ranks on the way back.

    Source: DeepSpeed-Ulysses (Jacobs et al. 2023).

    Args:
        group: the ranks that share a sequence; all there are if None.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self.group = group

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Mask = NoMask(),
        bias: Bias | Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Compute attention over the keys of all ranks.

        Args:
            q: (*, H, L/P, D), H a multiple of P.
            k, v: (*, G, M/P, D), G a multiple of P and a divisor of H.
            mask: over the positions and sizes of the whole sequence.
            bias: of the whole sequence, broadcastable to (B, H, L, M).
            options: as for `attend`.
        Returns:
            (*, H, L/P, D).
        Raises:
            ValueError: if the heads do not divide among the ranks, or these hold slices of different lengths; and where
                `attend` does.
        """
        bias = PairBias(bias) if isinstance(bias, Tensor) else bias
        P, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        check(q, k, v)
        self._check(q, k, P)
        H, L, M = q.shape[-3], P * q.shape[-2], P * k.shape[-2]
        if bias is not None:
            check_bias(bias, (prod(q.shape[:-3]), H, L, M))
        first, last = rank * H // P, (rank + 1) * H // P
        q, k, v = (self._trade(t, -3, -2) for t in (q, k, v))  # (*, H/P, L, D), (*, G/P, M, D), (*, G/P, M, D)
        out = attend(q, k, v, mask=mask.slice_heads(first, last), bias=_heads(bias, first, last, self.group), **options)
        return self._trade(out, -2, -3)  # (*, H, L/P, D)

    def _trade(self, t: Tensor, whole: int, spread: int) -> Tensor:
        """Spread over the ranks what was whole here, and make whole what was spread."""
        parts = torch.stack(t.chunk(dist.get_world_size(self.group), whole))  # (P, …): the r-th goes to rank r
        return torch.cat(_Exchange.apply(parts, self.group).unbind(), spread)

    def _check(self, q: Tensor, k: Tensor, P: int) -> None:
        heads = {"query": q.shape[-3], "key/value": k.shape[-3]}
        for name, number in heads.items():
            if number % P:
                raise ValueError(f"the {number} {name} heads must be a multiple of the {P} ranks that share them")
        here = torch.tensor([q.shape[-2], k.shape[-2]], device=q.device)
        there = [torch.empty_like(here) for _ in range(P)]
        dist.all_gather(there, here, self.group)
        lengths = [tuple(t.tolist()) for t in there]
        if len(set(lengths)) > 1:
            raise ValueError(f"the ranks must hold slices of one length; their (queries, keys) are {lengths}: pad them")


class ShareOfHeads:
    """`core.attention.attend` for heads divided among P ranks, in order: rank r holds the r-th of P equal shares.

        (*, H/P, L, D)  ->  attend with this rank's part of mask and bias  ->  (*, H/P, L, D)

    The bias, whole on every rank, gets its whole gradient on every rank.

    Source: Shoeybi et al. 2019, Megatron-LM.

    Args:
        group: the ranks that share the heads; all there are if None.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self.group = group

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Mask = NoMask(),
        bias: Bias | Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """As `attend`; `mask` and `bias` are those of all H heads."""
        bias = PairBias(bias) if isinstance(bias, Tensor) else bias
        rank, here = dist.get_rank(self.group), q.shape[-3]
        first, last = rank * here, (rank + 1) * here
        return attend(
            q, k, v, mask=mask.slice_heads(first, last), bias=_heads(bias, first, last, self.group), **options
        )


def _heads(bias: Bias | None, first: int, last: int, group: ProcessGroup | None) -> Bias | None:
    """The bias of some heads."""

    def part(t: Tensor) -> Tensor:
        t = _Whole.apply(t, group)
        return t if t.shape[1] == 1 else t[:, first:last]

    if bias is None:
        return None
    parts = [
        PairBias(part(term.values)) if isinstance(term, PairBias) else LowRankBias(part(term.u), part(term.w))
        for term in bias.parts
    ]
    return SumBias(tuple(parts))


class _Exchange(torch.autograd.Function):
    """Part r of (P, …) goes to rank r, what rank r sends becomes part r. It is its own transpose."""

    @staticmethod
    def forward(ctx, parts, group):
        ctx.group = group
        received = torch.empty_like(parts, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, parts.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Exchange.apply(grad, ctx.group), None


class _Whole(torch.autograd.Function):
    """The identity, whose backward pass sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx, t, group):
        ctx.group = group
        return t.view_as(t)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None
