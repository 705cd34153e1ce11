"""The costs of a training step: FLOPs, tokens, memory."""

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

# torch counts attention on a GPU, but not its CPU kernel.
CPU_ATTENTION_FLOPS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda out, q, k, v, *_, **__: (
        sdpa_backward_flop_count(out, q, k, v)
    ),
}


class _NoModuleTracker:
    """A stand-in for the counter's module tracker, whose hooks would keep activations that checkpointing frees."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def flop_counter() -> FlopCounterMode:
    """Return a context that counts the FLOPs (two a multiply-add) of matrix products, convolutions and attention."""
    counting = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION_FLOPS)
    counting.mod_tracker = _NoModuleTracker()  # pyright: ignore[reportAttributeAccessIssue]
    return counting


class MemoryTracker(TorchDispatchMode):
    """Track the bytes of all tensors made in its context, and of those passed to `track`.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self):
        super().__init__()
        self.sizes: dict[int, int] = {}  # of each storage that is alive
        self.now = self.peak = 0

    def track(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).untyped_storage()
            if storage._cdata not in self.sizes:
                weakref.finalize(storage, self._set, storage._cdata, 0)
            self._set(storage._cdata, storage.nbytes())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented  # its local tensor's operations are dispatched here as well
        out = func(*args, **(kwargs or {}))
        self.track(value for value in tree_iter(out) if isinstance(value, Tensor))
        return out

    def __enter__(self):
        resize = torch.UntypedStorage.resize_  # FSDP frees gathered weights by it

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
    """Return the peak memory of this process in bytes: on its GPU if it has one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s (two a multiply-add) of a large matrix product, the best of four."""
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)

    def seconds() -> float:
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for it
        return time.perf_counter() - started

    return 2 * size**3 / min(seconds() for _ in range(4))


class Costs(Callback):
    """Count the costs of this process's first training step, and the seconds of the run.

    Attributes:
        flops: FLOPs of that batch, forward and backward, on this process.
        tokens: tokens of that batch in the transformer.
        seconds: wall time of training steps and validation, summed over all parts of a resumed run.
    """

    def __init__(self):
        self.flops = self.tokens = 0
        self.seconds, self.began = 0.0, time.perf_counter()
        self.counting: FlopCounterMode | None = None

    def state_dict(self):
        self._add_elapsed()
        return {"flops": self.flops, "tokens": self.tokens, "seconds": self.seconds}

    def load_state_dict(self, state_dict):
        self.flops, self.tokens, self.seconds = (state_dict[name] for name in ("flops", "tokens", "seconds"))

    def on_train_start(self, trainer, pl_module):
        self.began = time.perf_counter()

    def on_train_end(self, trainer, pl_module):
        self._add_elapsed()

    def _add_elapsed(self) -> None:
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.flops == 0:
            adapter: Any = pl_module.adapter  # domain=joint shares the first block
            self.watch = adapter.transformer.blocks[0].register_forward_pre_hook(self._count_tokens, with_kwargs=True)
            self.counting = flop_counter()
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

    def _count_tokens(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        x = kwargs["x"] if "x" in kwargs else args[0]
        self.tokens += x.shape[0] * x.shape[1]
