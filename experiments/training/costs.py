"""What a training step costs: floating-point operations, tokens, memory."""

import resource
import sys
import time
import weakref
from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# torch counts attention on a GPU, and its CPU kernel as nothing.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda out, q, k, v, *_, **__: (
        sdpa_backward_flop_count(out, q, k, v)
    ),
}


class _Nowhere:
    """In the place of the counter's tracker of modules, whose hooks keep what recomputation is there to free."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def counter() -> FlopCounterMode:
    """Counts the operations (two a multiply-add) of matrix products, convolutions and attention in its context."""
    counting = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    counting.mod_tracker = _Nowhere()  # pyright: ignore[reportAttributeAccessIssue]
    return counting


class MemoryTracker(TorchDispatchMode):
    """Follows how many bytes all tensors hold that are made in its context, or that it was told of before.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}  # of each storage that is alive
        self.now = self.peak = 0

    def tell(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).untyped_storage()
            if storage._cdata not in self.sizes:
                weakref.finalize(storage, self._set, storage._cdata, 0)
            self._set(storage._cdata, storage.nbytes())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented  # what it does with its part of the values comes here, too
        out = func(*args, **(kwargs or {}))
        self.tell(value for value in tree_iter(out) if isinstance(value, Tensor))
        return out

    def __enter__(self):
        resize = torch.UntypedStorage.resize_  # by which FSDP frees what it had gathered

        def resized(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            result = resize(storage, size)
            if storage._cdata in self.sizes:
                self._set(storage._cdata, storage.nbytes())
            return result

        self.patched = patch.object(torch.UntypedStorage, "resize_", resized)
        self.patched.start()
        return super().__enter__()

    def __exit__(self, *error):
        self.patched.stop()
        return super().__exit__(*error)

    def _set(self, storage: int, size: int) -> None:
        self.now += size - self.sizes.pop(storage, 0)
        if size:
            self.sizes[storage] = size
        self.peak = max(self.peak, self.now)


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes: on its GPU if it has one, else in all."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second (two a multiply-add) of a large matrix product, the best of some: what a device can do."""
    n = 1024 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=dtype)

    def seconds() -> float:
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for it
        return time.perf_counter() - began

    return 2 * n**3 / min(seconds() for _ in range(4))


class Costs(Callback):
    """Counts during the first training step of this process, which takes a moment longer for it.

    Attributes:
        flops: floating-point operations on that batch, forward and backward, on this process.
        tokens: that the transformer saw of it.
        seconds: wall time spent in training steps and validation, over all parts of a run that was stopped.
    """

    def __init__(self):
        self.flops = self.tokens = 0
        self.seconds, self.began = 0.0, time.perf_counter()
        self.counting: FlopCounterMode | None = None

    def state_dict(self):
        self._look_at_the_clock()
        return {"flops": self.flops, "tokens": self.tokens, "seconds": self.seconds}

    def load_state_dict(self, state_dict):
        self.flops, self.tokens, self.seconds = (state_dict[name] for name in ("flops", "tokens", "seconds"))

    def on_train_start(self, trainer, pl_module):
        self.began = time.perf_counter()

    def on_train_end(self, trainer, pl_module):
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.flops == 0:
            adapter: Any = pl_module.adapter  # its first block is that of all domains, where they share a core
            self.watch = adapter.transformer.blocks[0].register_forward_pre_hook(self._see, with_kwargs=True)
            self.counting = counter()
            self.counting.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._stop()

    def on_exception(self, trainer, pl_module, exception):
        self._stop()

    def _stop(self) -> None:
        if self.counting is not None:
            self.counting.__exit__(None, None, None)
            self.watch.remove()
            self.flops, self.counting = self.counting.get_total_flops(), None

    def _see(self, module: Any, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        x = named["x"] if "x" in named else given[0]
        self.tokens += x.shape[0] * x.shape[1]
