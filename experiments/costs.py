"""What a training step costs: floating-point operations, tokens, memory."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# torch counts attention on a GPU, and its CPU kernel as nothing.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda out, q, k, v, *_, **__: (
        sdpa_backward_flop_count(out, q, k, v)
    ),
}


def counter() -> FlopCounterMode:
    """Counts the operations (two a multiply-add) of matrix products, convolutions and attention in its context."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


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
