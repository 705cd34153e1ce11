"""`attend bench kernels`: which attention kernel runs here, how fast, and in how much memory.

Each case is timed in turns with what it is compared with, so that a machine that slows down slows both down.
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
from experiments.environment import best_device, environment
from experiments.runs import write_json
from experiments.terminal import terminal

Call = Callable[[], Any]
COLUMNS = ("case", "plan", "ms", "peak MB", "against", "time ×", "memory ×")


@dataclass
class Case:
    """A call, what it is compared with, and what the planner says of it."""

    name: str
    plan: str
    call: Call
    against: str
    other: Call


def run(config: DictConfig) -> None:
    """Prints a table and writes kernels.json into `config.output`.

    Raises:
        ValueError: for a benchmark that there is none of.
    """
    if config.what != "kernels":
        raise ValueError(f"there is no benchmark {config.what!r}; possible: kernels")
    device, rows = best_device(), []
    for case in cases(device):
        seconds = [(clock(case.call, device), clock(case.other, device)) for _ in range(config.repeats + 1)][1:]
        memory, other_memory = peak(case.call, device), peak(case.other, device)
        rows.append(
            {
                "case": case.name,
                "plan": case.plan,
                "milliseconds": 1e3 * median(ours for ours, _ in seconds),
                "peak_mb": memory / 1e6,
                "against": case.against,
                "time_ratio": median(ours / theirs for ours, theirs in seconds),
                "memory_ratio": memory / max(1, other_memory),
            }
        )
    output = Path(config.output)
    write_json(output / "kernels.json", {"rows": rows, "repeats": config.repeats, **environment()})
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    console = terminal()
    console.width = max(console.width, 160)
    console.print(table)
    console.print(f"wrote {output}/kernels.json")


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table, as text."""
    numbers = (f"{row['milliseconds']:.1f}", f"{row['peak_mb']:.1f}")
    ratios = (f"{row['time_ratio']:.2f}", f"{row['memory_ratio']:.2f}")
    return [row["case"], row["plan"], *numbers, row["against"], *ratios]


def cases(device: torch.device) -> list[Case]:
    """The kernels of this project at the sizes they are made for, each beside torch's own."""
    found = []

    def heads(B: int, H: int, L: int, D: int) -> list[Tensor]:
        return [torch.randn(B, H, L, D, device=device, requires_grad=True) for _ in range(3)]

    def add(name: str, qkv: list[Tensor], against: str, other: dict[str, Any], **options: Any) -> None:
        told = str(plan(*qkv, **options)).split(":")[0]  # pyright: ignore[reportCallIssue]
        ours, theirs = both_ways(qkv, **options), both_ways(qkv, **other)
        found.append(Case(name, told, ours, against, theirs))

    qkv = heads(1, 8, 2048, 32)
    add("causal, L 2048", qkv, "no mask", {}, mask=Causal())
    add("window 128, L 4096", heads(1, 8, 4096, 32), "causal", {"mask": Causal()}, mask=Window(128))
    N, H = 192, 4
    triangle = heads(N, H, N, 16)
    bias = PairBias(torch.randn(1, H, N, N, device=device, requires_grad=True))
    by_torch = {"bias": bias, "backend": "sdpa"}
    add(f"trained bias, N {N} (triangle)", triangle, "the same by torch", by_torch, bias=bias)
    u, w = (torch.randn(1, H, N, 8, device=device, requires_grad=True) for _ in range(2))
    add("trained bias of rank 8", triangle, "a bias of full rank by torch", by_torch, bias=LowRankBias(u, w))

    q, k, v = (t.detach() for t in heads(1, 4, 8192, 64))
    found.append(
        Case(
            "linear attention, causal, L 8192, forward",
            "linear",
            lambda: linear.chunked(linear.elu_features(q), linear.elu_features(k), v),
            "full attention",
            lambda: attend(q, k, v),
        )
    )
    return found


def both_ways(qkv: list[Tensor], *, mask: Mask = NoMask(), bias: Bias | None = None, backend: str = "auto") -> Call:
    """Forward and backward, with the gradients of everything that is trained."""
    trained = [tensor for part in (bias.parts if bias else ()) for tensor in vars(part).values()]
    q, k, v = qkv

    def call():
        out = attend(q, k, v, mask=mask, bias=bias, backend=backend)
        return torch.autograd.grad(out, [q, k, v, *trained], torch.ones_like(out))

    return call


def clock(call: Call, device: torch.device) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak(call: Call, device: torch.device) -> int:
    """The most memory that a call holds at once beyond what was there before it, in bytes; 0 where that is not told."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    statm, page = Path("/proc/self/statm"), resource.getpagesize()
    if not statm.is_file():
        return 0  # only Linux tells a process its memory as it goes
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have left would hide what this one takes
    before = most = int(statm.read_text().split()[1])
    done = threading.Event()

    def watch():
        nonlocal most
        while not done.is_set():
            most = max(most, int(statm.read_text().split()[1]))
            time.sleep(2e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return (most - before) * page
