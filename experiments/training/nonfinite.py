"""Values that are not finite: in which step they came first, and in which module."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from domains.adapter import Batch, DomainAdapter
from domains.data_warnings import listed

LATEST = 25  # losses whose mean is logged: one batch says little


def nonfinite(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The names of the tensors that hold NaN or infinity, as text; "" if none does."""
    return listed([name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()])


def source_of_nan(adapter: DomainAdapter, batch: Batch, shared: bool = False) -> str:
    """Where the first values that are no numbers come from: the batch, the weights, or the output of a module.

    -inf is no fault in an output: masks hold it.

    Args:
        shared: the model is divided among processes, and cannot be run by one that looks for a fault by itself.
    """
    if names := nonfinite(named(batch)):
        return f"the batch's {names} are not finite"
    weights = ((name, p.to_local() if isinstance(p, DTensor) else p) for name, p in adapter.named_parameters())
    if names := nonfinite(weights):
        return f"the weights {names} are not finite"
    if shared:
        return "the batch and the weights before it are finite"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if not found and any((x.isnan() | x.isposinf()).any() for x in tensors(output)):
                found.append(name)

        return hook

    hooks = [part.register_forward_hook(look(name)) for name, part in adapter.named_modules() if name]
    with torch.no_grad():
        adapter(batch)
    for hook in hooks:
        hook.remove()
    return f"the first output that is not finite is that of {found[0]}" if found else "all outputs are finite"


def named(batch: Any, within: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch, or of one for each domain, by dotted names."""
    for name, value in batch.items():
        if isinstance(value, dict):
            yield from named(value, f"{within}{name}.")
        else:
            yield within + name, value


def tensors(output: Any) -> Iterator[Tensor]:
    """Every floating tensor in a module's output."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list | dict):
        for part in output.values() if isinstance(output, dict) else output:
            yield from tensors(part)


class LossHistory:
    """The last losses, and the first that was not finite: tensors on the losses' device, so that no host waits for it.

    Attributes:
        recent: up to LATEST losses, oldest first, in float64 where the device has it.
        first_nonfinite: number of the first batch whose loss was not finite, -1 if there is none; None before any loss.
    """

    def __init__(self):
        self.recent, self.first_nonfinite = torch.zeros(0, dtype=torch.float64), None

    def check(self, loss: Tensor, number: int) -> None:
        """Note the number of a batch whose loss is not finite, if it is the first."""
        if self.first_nonfinite is None:
            self.first_nonfinite = torch.full_like(loss, -1, dtype=torch.int64)
        self.first_nonfinite.masked_fill_((self.first_nonfinite < 0) & ~loss.isfinite(), number)

    def append(self, loss: Tensor) -> None:
        wide = torch.float32 if loss.device.type == "mps" else torch.float64
        self.recent = torch.cat([self.recent.to(loss.device, wide), loss[None].to(wide)])[-LATEST:]

    def mean(self) -> Tensor:
        return self.recent.mean().to(torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32)

    def nonfinite(self) -> int | None:
        """Wait for the device, and return the number of the first batch whose loss was not finite; None if all were."""
        number = -1 if self.first_nonfinite is None else int(self.first_nonfinite)
        self.first_nonfinite = None
        return None if number < 0 else number
