"""Reads causality and padding off a mask, for mixers without attention maps."""

import torch
from torch import Tensor

from core.bias import Bias
from core.cache import BlockCache
from core.masks import And, Causal, LeftPadding, Lengths, Mask, NoMask, Padding


def causal_and_padding(
    name: str, x: Tensor, mask: Mask, bias: Bias | None, cache: BlockCache | None = None
) -> tuple[bool, Tensor | None]:
    """Return whether a mask is causal, and which of the tokens x (B, L, C) are real, (B, L); None if all are.

    Raises:
        ValueError: for any other mask, or a bias: without attention maps there is nothing to apply them to.
    """
    if bias is not None:
        raise ValueError(f"mixer={name} has no attention scores that a bias could be added to; use mixer=softmax")
    B, L = x.shape[:2]
    causal, valid = _split(name, mask, B, L + (0 if cache is None else cache.length))
    return causal, None if valid is None else valid[:, -L:]


def _split(name: str, mask: Mask, batch: int, keys: int) -> tuple[bool, Tensor | None]:
    match mask:
        case NoMask():
            return False, None
        case Causal():
            return True, None
        case Padding(valid):
            mask.check(batch, keys, keys)
            return False, valid
        case Lengths(lengths):
            mask.check(batch, keys, keys)
            return False, torch.arange(keys, device=lengths.device) < lengths[:, None]
        case LeftPadding(starts):
            return False, torch.arange(keys, device=starts.device) >= starts[:, None]
        case And(first, second):
            one, two = (_split(name, part, batch, keys) for part in (first, second))
            known = [valid for _, valid in (one, two) if valid is not None]
            return one[0] or two[0], torch.stack(known).all(0) if known else None
    raise ValueError(f"mixer={name} takes no {type(mask).__name__} mask, only causality and padding; use mixer=softmax")
