"""Non-finite values: the step and the module where they first occurred."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from domains.adapter import Batch, DomainAdapter
from domains.data_warnings import listed

MEAN_LOSSES = 25  # number of losses whose mean is logged; one batch is too noisy


def nonfinite(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the names of the tensors that hold NaN or infinity, as text; "" if none does."""
    return listed([name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()])


def find_nonfinite_source(adapter: DomainAdapter, batch: Batch, sharded: bool = False) -> str:
    """Return where non-finite values first occur: the batch, the weights, or the output of a module.

    -inf in an output is allowed: masks hold it.

    Args:
        sharded: the model is divided among processes, so one process cannot run it to look at the outputs.
    """
    if names := nonfinite(named_tensors(batch)):
        return f"the batch's {names} are not finite"
    weights = ((name, p.to_local() if isinstance(p, DTensor) else p) for name, p in adapter.named_parameters())
    if names := nonfinite(weights):
        return f"the weights {names} are not finite"
    if sharded:
        return "the batch and the weights before it are finite"
    names_found: list[str] = []

    def make_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not names_found and any((x.isnan() | x.isposinf()).any() for x in float_tensors(output)):
                names_found.append(name)

        return hook

    hooks = [module_.register_forward_hook(make_hook(name)) for name, module_ in adapter.named_modules() if name]
    with torch.no_grad():
        adapter(batch)
    for hook in hooks:
        hook.remove()
    return (
        f"the first output that is not finite is that of {names_found[0]}" if names_found else "all outputs are finite"
    )


def named_tensors(batch: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a batch, or of one batch per domain, by dotted names."""
    for name, value in batch.items():
        if isinstance(value, dict):
            yield from named_tensors(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def float_tensors(output: Any) -> Iterator[Tensor]:
    """Yield every floating tensor in a module's output."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, tuple | list | dict):
        for module_ in output.values() if isinstance(output, dict) else output:
            yield from float_tensors(module_)


class LossHistory:
    """The recent losses and the first non-finite one, as tensors on the device, so that the host does not wait.

    Attributes:
        recent: up to LATEST losses, oldest first, in float64 where the device has it.
        first_nonfinite: number of the first batch with a non-finite loss, -1 if there is none; None before any loss.
    """

    def __init__(self):
        self.recent, self.first_nonfinite = torch.zeros(0, dtype=torch.float64), None

    def check(self, loss: Tensor, number: int) -> None:
        """Record the number of a batch whose loss is not finite, if it is the first."""
        if self.first_nonfinite is None:
            self.first_nonfinite = torch.full_like(loss, -1, dtype=torch.int64)
        self.first_nonfinite.masked_fill_((self.first_nonfinite < 0) & ~loss.isfinite(), number)

    def append(self, loss: Tensor) -> None:
        wide = torch.float32 if loss.device.type == "mps" else torch.float64
        self.recent = torch.cat([self.recent.to(loss.device, wide), loss[None].to(wide)])[-MEAN_LOSSES:]

    def mean(self) -> Tensor:
        return self.recent.mean().to(torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32)

    def nonfinite(self) -> int | None:
        """Wait for the device; return the number of the first batch with a non-finite loss, or None."""
        number = -1 if self.first_nonfinite is None else int(self.first_nonfinite)
        self.first_nonfinite = None
        return None if number < 0 else number
