"""`attend plan`: does a training fit on so many devices of a kind, and how long does a step take?

No such device is needed: one training step of the first of them is gone through with tensors that have shapes and no
values, in a world of processes that are not there.

Shapes: B samples of one device · L tokens
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from domains.adapter import Batch, mean_loss
from experiments.compose import compose
from experiments.config import OptimizerConfig, PlanConfig, TrainerConfig
from experiments.environment import environment
from experiments.runs import make_adapter, make_data, typed, write_json
from experiments.terminal import terminal
from experiments.train import quiet
from experiments.training.costs import MemoryTracker, counter
from experiments.training.optimizers import make_optimizer
from experiments.training.parallel import DATA, TENSOR, parallelize


class Device(NamedTuple):
    """As its maker says: memory in bytes, and dense bfloat16 operations (two a multiply-add) a second."""

    memory: float
    flops: float


GB = 1e9
DEVICES = {
    "h200": Device(141 * GB, 989e12),
    "h100": Device(80 * GB, 989e12),
    "a100": Device(80 * GB, 312e12),
    "a100_40gb": Device(40 * GB, 312e12),
    "l40s": Device(48 * GB, 362e12),
    "l4": Device(24 * GB, 121e12),
    "rtx4090": Device(24 * GB, 165e12),
    "v100": Device(32 * GB, 125e12),
}
RESERVED = 0.1  # of a device's memory: what its driver takes, and what lies free between tensors


def run(config: DictConfig) -> None:
    """Prints what one device would hold and do, and writes plan.json into `config.output`.

    Raises:
        ValueError: for an unknown kind of device, or a training that cannot be shared so.
    """
    asked: PlanConfig = typed(PlanConfig, config)
    if asked.device not in DEVICES:
        raise ValueError(f"device={asked.device} is unknown; possible: {', '.join(DEVICES)}")
    if asked.devices < 1 or not 0 < asked.utilisation <= 1:
        raise ValueError(f"devices={asked.devices} must be at least 1, and utilisation={asked.utilisation} in (0, 1]")
    words = [*asked.settings]
    if asked.devices > 1 and not any(word.startswith(("trainer=", "trainer.strategy=")) for word in words):
        words.append("trainer=fsdp")
    quiet()
    found = estimate(compose("config", words), asked.devices, asked.length)
    kind = DEVICES[asked.device]
    found |= judged(found, kind, asked)
    output = Path(asked.output)
    write_json(output / "plan.json", {**vars(asked), **found, **environment()})
    console = terminal()
    show(found, asked, console)
    console.print(f"wrote {output}/plan.json")


def estimate(config: DictConfig, devices: int, length: int | None = None, half: bool = True) -> dict[str, Any]:
    """What one training step takes of the first of `devices`, in bytes and operations.

    Args:
        length: tokens of a sample, instead of those that the data have.
        half: compute in bfloat16, from weights in float32.
    Raises:
        ValueError: if the devices cannot share the training so.
    """
    settings: TrainerConfig = typed(TrainerConfig, config.trainer)
    rows = settings.tensor_parallel
    if devices % rows:
        raise ValueError(f"trainer.tensor_parallel={rows} must divide the {devices} devices")
    if "batch_size" not in config.data:
        raise ValueError(f"domain={config.domain.name} has no data.batch_size of its own; plan its domains one by one")
    columns = devices // rows
    each = max(1, config.data.batch_size // columns)  # samples of one device
    data = make_data(config)
    rngs = (np.random.default_rng(n) for n in range(each))
    given = data.batch("train", [n % data.size("train") for n in range(each)], rngs)
    spec = data.spec()
    with world(columns, rows) as whole, FakeTensorMode(allow_non_fake_inputs=True) as fake:
        adapter = make_adapter(config, spec)
        size = sum(p.numel() for p in adapter.parameters())
        batch: Batch = {name: fake.from_tensor(value) for name, value in given.items()}
        tokens = adapter.tokens(batch).x.shape[1]
        if length is not None:
            batch, tokens = stretched(batch, tokens, length), length
        mesh = whole if settings.strategy == "shard" else None
        parallelize(adapter, mesh, recompute=settings.recompute)
        optimizer = make_optimizer(adapter, typed(OptimizerConfig, config.optimizer))
        for p in adapter.parameters():  # so that the optimizer has its state, as it does from the second step on
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()
        held = MemoryTracker()
        held.tell([*adapter.parameters(), *adapter.buffers(), *moments(optimizer), *batch.values()])
        with counter() as counted, held, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # of a CPU's kernel
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # none is changed
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = mean_loss(adapter.loss(adapter(batch), batch))
            loss.backward()
            optimizer.step()
        kept = states(adapter, optimizer)
    peak = held.peak
    if settings.strategy == "ddp" and devices > 1:  # gradients are copied into buckets, to be sent
        peak += kept["gradients"]
    return {
        "parameters": size,
        "batch_size": each * columns,
        "samples_per_device": each,
        "tokens_per_sample": tokens,
        **kept,
        "activations": peak - sum(kept.values()),
        "peak": peak,
        "flops_per_device": counted.get_total_flops() * settings.accumulate_grad_batches,
        "strategy": settings.strategy,
        "tensor_parallel": rows,
    }


@contextmanager
def world(columns: int, rows: int) -> Iterator[dict[str, DeviceMesh]]:
    """As if this were the first process of a mesh; what would be sent to the others is dropped."""
    dist.init_process_group("fake", rank=0, world_size=columns * rows, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (columns, rows), mesh_dim_names=(DATA, TENSOR))
        with patch.object(DeviceMesh, "_concatenate", real(DeviceMesh._concatenate)):
            yield {name: mesh[name] for name in (DATA, TENSOR)}
    finally:
        dist.destroy_process_group()


def real(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with tensors that have values: a mesh looks up its own place in one."""

    def made(*given: Any) -> Any:
        with unset_fake_temporarily():
            return make(*given)

    return made


def stretched(batch: Batch, now: int, then: int) -> Batch:
    """The batch with `then` tokens in a sample: every dimension but the first that was as long as `now`."""

    def longer(value: Tensor) -> Tensor:
        sizes = [value.shape[0], *(then if n == now else n for n in value.shape[1:])]
        return torch.zeros(sizes, dtype=value.dtype)

    return {name: longer(value) for name, value in batch.items()}


def states(adapter: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """What a device holds from step to step, in bytes, from shapes alone."""

    def here(tensor: Tensor) -> int:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return prod(local.shape) * local.element_size()

    weights = sum(here(p) for p in adapter.parameters())
    trained = sum(here(p) for p in adapter.parameters() if p.requires_grad)
    return {"weights": weights, "gradients": trained, "optimizer": sum(map(here, moments(optimizer)))}


def moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimizer remembers of gradients."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def judged(found: dict[str, Any], kind: Device, asked: PlanConfig) -> dict[str, Any]:
    """Whether it fits, why, and how long a step takes at the stated utilisation."""
    parts = ("weights", "gradients", "optimizer", "activations")
    room, need = (1 - RESERVED) * kind.memory, found["peak"]
    largest = max(parts, key=lambda part: found[part])
    if need <= room:
        why = f"{need / GB:.3g} of {room / GB:.3g} GB"
    else:
        advice = (
            "trainer.recompute=true, a smaller data.batch_size, trainer.tensor_parallel"
            if largest == "activations"
            else "more devices with trainer=fsdp, or trainer=tp_fsdp"
        )
        why = f"{need / GB:.3g} GB, of which {largest} {found[largest] / GB:.3g}, exceed {room / GB:.3g}: {advice}"
    a_sample = found["activations"] / found["samples_per_device"]
    return {
        "fits": need <= room,
        "samples_that_fit": max(0, int((room - need + found["activations"]) // a_sample)),
        "because": why,
        "seconds_per_step": found["flops_per_device"] / (kind.flops * asked.utilisation),
    }


def show(found: dict[str, Any], asked: PlanConfig, console: Console) -> None:
    table = Table("one device", "")
    for part in ("weights", "gradients", "optimizer", "activations", "peak"):
        table.add_row(part, f"{found[part] / GB:.4g} GB")
    table.add_row("operations a step", f"{found['flops_per_device'] / 1e12:.4g} TFLOP")
    table.add_row("a step", f"{found['seconds_per_step']:.3g} s at {asked.utilisation:.0%} of {asked.device}'s peak")
    console.print(
        f"{found['parameters']:,} parameters on {asked.devices} × {asked.device}, strategy {found['strategy']}, "
        f"tensor_parallel {found['tensor_parallel']}; {found['batch_size']} samples a step, "
        f"{found['samples_per_device']} on a device, of {found['tokens_per_sample']:,} tokens"
    )
    console.print(table)
    verdict = f"{'fits' if found['fits'] else 'does not fit'}: {found['because']}"
    console.print(f"{verdict}; room for about {found['samples_that_fit']:,} samples on a device")
