"""`attend bench kernels`: the attention kernel that runs on this machine, its time and its memory.

Each case and its baseline are timed in turns, so that a machine that slows down slows both.
"""

import ctypes
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from core.attention import attend
from core.bias import Bias, LowRankBias, PairBias
from core.masks import Causal, Mask, NoMask, Window
from core.mixers import linear_attention as linear
from core.planner import plan
from experiments.console import make_console
from experiments.environment import best_device, environment
from experiments.runs import write_json

Call = Callable[[], Any]
COLUMNS = ("case", "plan", "ms", "peak MB", "against", "time ×", "memory ×")


@dataclass
class Case:
    """A call, its baseline, and the planner's choice of kernel."""

    name: str
    plan: str
    call: Call
    against: str
    baseline: Call


def run(config: DictConfig) -> None:
    """Print a table, and write kernels.json to `config.output`.

    Raises:
        ValueError: for an unknown benchmark.
    """
    if config.what != "kernels":
        raise ValueError(f"there is no benchmark {config.what!r}; possible: kernels")
    device, rows = best_device(), []
    for case in cases(device):
        seconds = [(time_call(case.call, device), time_call(case.baseline, device)) for _ in range(config.repeats + 1)][
            1:
        ]
        memory, other_memory = peak_memory_of_call(case.call, device), peak_memory_of_call(case.baseline, device)
        rows.append(
            {
                "case": case.name,
                "plan": case.plan,
                "milliseconds": 1e3 * median(ours for ours, _ in seconds),
                "peak_mb": memory / 1e6,
                "against": case.against,
                "time_ratio": median(ours / baseline for ours, baseline in seconds),
                "memory_ratio": memory / max(1, other_memory),
            }
        )
    output = Path(config.output)
    write_json(output / "kernels.json", {"rows": rows, "repeats": config.repeats, **environment()})
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*table_row(row))
    console = make_console()
    console.width = max(console.width, 160)
    console.print(table)
    console.print(f"wrote {output}/kernels.json")


def table_row(row: dict[str, Any]) -> list[str]:
    """Format a row of the table as text."""
    numbers = (f"{row['milliseconds']:.1f}", f"{row['peak_mb']:.1f}")
    ratios = (f"{row['time_ratio']:.2f}", f"{row['memory_ratio']:.2f}")
    return [row["case"], row["plan"], *numbers, row["against"], *ratios]


def cases(device: torch.device) -> list[Case]:
    """Return the kernels of this project at typical sizes, each with torch's own as its baseline."""
    all_cases = []

    def make_qkv(B: int, H: int, L: int, D: int) -> list[Tensor]:
        return [torch.randn(B, H, L, D, device=device, requires_grad=True) for _ in range(3)]

    def add(name: str, qkv: list[Tensor], against: str, baseline_options: dict[str, Any], **options: Any) -> None:
        kernel = str(plan(*qkv, **options)).split(":")[0]  # pyright: ignore[reportCallIssue]
        ours, baseline = forward_backward(qkv, **options), forward_backward(qkv, **baseline_options)
        all_cases.append(Case(name, kernel, ours, against, baseline))

    qkv = make_qkv(1, 8, 2048, 32)
    add("causal, L 2048", qkv, "no mask", {}, mask=Causal())
    add("window 128, L 4096", make_qkv(1, 8, 4096, 32), "causal", {"mask": Causal()}, mask=Window(128))
    N, H = 192, 4
    triangle = make_qkv(N, H, N, 16)
    bias = PairBias(torch.randn(1, H, N, N, device=device, requires_grad=True))
    by_torch = {"bias": bias, "backend": "sdpa"}
    add(f"trained bias, N {N} (triangle)", triangle, "the same by torch", by_torch, bias=bias)
    u, w = (torch.randn(1, H, N, 8, device=device, requires_grad=True) for _ in range(2))
    add("trained bias of rank 8", triangle, "a bias of full rank by torch", by_torch, bias=LowRankBias(u, w))

    q, k, v = (t.detach() for t in make_qkv(1, 4, 8192, 64))
    all_cases.append(
        Case(
            "linear attention, causal, L 8192, forward",
            "linear",
            lambda: linear.chunked(linear.elu_features(q), linear.elu_features(k), v),
            "full attention",
            lambda: attend(q, k, v),
        )
    )
    return all_cases


def forward_backward(
    qkv: list[Tensor], *, mask: Mask = NoMask(), bias: Bias | None = None, backend: str = "auto"
) -> Call:
    """Return a call that runs forward and backward, with the gradients of q, k, v and the bias."""
    parameters = [tensor for part in (bias.parts if bias else ()) for tensor in vars(part).values()]
    q, k, v = qkv

    def call():
        out = attend(q, k, v, mask=mask, bias=bias, backend=backend)
        return torch.autograd.grad(out, [q, k, v, *parameters], torch.ones_like(out))

    return call


def time_call(call: Call, device: torch.device) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak_memory_of_call(call: Call, device: torch.device) -> int:
    """Return the peak memory of a call in bytes, beyond what was allocated before; 0 where it cannot be measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    statm, page = Path("/proc/self/statm"), resource.getpagesize()
    if not statm.is_file():
        return 0  # only Linux has /proc/self/statm
    ctypes.CDLL(None).malloc_trim(0)  # free memory that earlier calls left would hide this call's
    before = highest = int(statm.read_text().split()[1])
    done = threading.Event()

    def watch():
        nonlocal highest
        while not done.is_set():
            highest = max(highest, int(statm.read_text().split()[1]))
            time.sleep(2e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return (highest - before) * page
