"""What mixers without attention maps can make of a mask."""

import torch
from torch import Tensor

from core.bias import Bias
from core.masks import And, Causal, Everything, LeftPadding, Lengths, Mask, Padding


def visible(name: str, mask: Mask, batch: int, keys: int, bias: Bias | None) -> tuple[bool, Tensor | None]:
    """Whether a mask is causal, and which tokens it leaves out, (B, M) or None.

    Raises:
        ValueError: for any other mask, or a bias: without attention maps there is nothing to apply them to.
    """
    if bias is not None:
        raise ValueError(f"mixer={name} has no attention scores that a bias could be added to; use mixer=softmax")
    match mask:
        case Everything():
            return False, None
        case Causal():
            return True, None
        case Padding() | Lengths():
            mask.check(batch, keys, keys)
            index = torch.arange(keys, device=_device(mask))
            b = torch.arange(batch, device=_device(mask))[:, None]
            return False, mask.allows(b, b, index, index[None])
        case LeftPadding(starts):
            return False, torch.arange(keys, device=starts.device) >= starts[:, None]
        case And(first, second):
            one, two = visible(name, first, batch, keys, None), visible(name, second, batch, keys, None)
            known = [valid for _, valid in (one, two) if valid is not None]
            return one[0] or two[0], torch.stack(known).all(0) if known else None
    raise ValueError(f"mixer={name} takes no {type(mask).__name__} mask, only causality and padding; use mixer=softmax")


def _device(mask: Padding | Lengths) -> torch.device:
    return mask.valid.device if isinstance(mask, Padding) else mask.lengths.device
