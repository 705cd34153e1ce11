"""`attend plan`: estimate whether a training fits on a number of devices, and how long a step takes.

No device is needed: one training step of rank 0 runs on fake tensors (shapes without values) in a fake process group.

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
from experiments.console import make_console
from experiments.environment import environment
from experiments.runs import make_adapter, make_data, to_dataclass, write_json
from experiments.train import silence_warnings
from experiments.training.costs import MemoryTracker, flop_counter
from experiments.training.optimizers import make_optimizer
from experiments.training.parallel import DATA, TENSOR, parallelize


class DeviceSpec(NamedTuple):
    """The maker's figures of a device: memory in bytes, and dense bfloat16 FLOP/s (a multiply-add counts as two)."""

    memory: float
    flops: float


GB = 1e9
DEVICES = {
    "h200": DeviceSpec(141 * GB, 989e12),
    "h100": DeviceSpec(80 * GB, 989e12),
    "a100": DeviceSpec(80 * GB, 312e12),
    "a100_40gb": DeviceSpec(40 * GB, 312e12),
    "l40s": DeviceSpec(48 * GB, 362e12),
    "l4": DeviceSpec(24 * GB, 121e12),
    "rtx4090": DeviceSpec(24 * GB, 165e12),
    "v100": DeviceSpec(32 * GB, 125e12),
}
RESERVED = 0.1  # share of a device's memory for its driver and for fragmentation


def run(config: DictConfig) -> None:
    """Print the memory and time that one device needs, and write plan.json to `config.output`.

    Raises:
        ValueError: for an unknown kind of device, or a number of devices that cannot divide the training.
    """
    c: PlanConfig = to_dataclass(PlanConfig, config)
    if c.device not in DEVICES:
        raise ValueError(f"device={c.device} is unknown; possible: {', '.join(DEVICES)}")
    if c.devices < 1 or not 0 < c.mfu <= 1:
        raise ValueError(f"devices={c.devices} must be at least 1, and mfu={c.mfu} in (0, 1]")
    overrides = [*c.settings]
    if c.devices > 1 and not any(o.startswith(("trainer=", "trainer.strategy=")) for o in overrides):
        overrides.append("trainer=fsdp")
    silence_warnings()
    scale_plan = make_scale_plan(compose("config", overrides), c.devices, c.length)
    spec = DEVICES[c.device]
    scale_plan |= assess_fit(scale_plan, spec, c)
    output = Path(c.output)
    write_json(output / "plan.json", {**vars(c), **scale_plan, **environment()})
    console = make_console()
    print_scale_plan(scale_plan, c, console)
    console.print(f"wrote {output}/plan.json")


def make_scale_plan(config: DictConfig, devices: int, length: int | None = None, half: bool = True) -> dict[str, Any]:
    """Return the bytes and FLOPs that one training step needs on the first of `devices`.

    Args:
        length: tokens of a sample; None takes the length of the data.
        half: compute in bfloat16, with weights in float32.
    Raises:
        ValueError: if the training cannot be divided among the devices.
    """
    settings: TrainerConfig = to_dataclass(TrainerConfig, config.trainer)
    tensor_parallel = settings.tensor_parallel
    if devices % tensor_parallel:
        raise ValueError(f"trainer.tensor_parallel={tensor_parallel} must divide the {devices} devices")
    if "batch_size" not in config.data:
        raise ValueError(f"domain={config.domain.name} has no data.batch_size of its own; plan its domains one by one")
    data_parallel = devices // tensor_parallel
    samples_per_device = max(1, config.data.batch_size // data_parallel)  # samples of one device
    data = make_data(config)
    rngs = (np.random.default_rng(n) for n in range(samples_per_device))
    args = data.batch("train", [n % data.size("train") for n in range(samples_per_device)], rngs)
    spec = data.spec()
    with fake_world(data_parallel, tensor_parallel) as mesh_by_name, FakeTensorMode(allow_non_fake_inputs=True) as fake:
        adapter = make_adapter(config, spec)
        size = sum(p.numel() for p in adapter.parameters())
        batch: Batch = {name: fake.from_tensor(value) for name, value in args.items()}
        tokens = adapter.tokens(batch).x.shape[1]
        if length is not None:
            batch, tokens = resize_length(batch, tokens, length), length
        mesh = mesh_by_name if settings.strategy == "shard" else None
        parallelize(adapter, mesh, activation_checkpointing=settings.activation_checkpointing)
        optimizer = make_optimizer(adapter, to_dataclass(OptimizerConfig, config.optimizer))
        for p in adapter.parameters():  # a first step creates the optimizer's state
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()
        memory = MemoryTracker()
        memory.track([*adapter.parameters(), *adapter.buffers(), *optimizer_tensors(optimizer), *batch.values()])
        with flop_counter() as counted, memory, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # of a CPU's kernel
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")  # none is changed
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = mean_loss(adapter.loss(adapter(batch), batch))
            loss.backward()
            optimizer.step()
        states = state_bytes(adapter, optimizer)
    peak = memory.peak
    if settings.strategy == "ddp" and devices > 1:  # gradients are copied into buckets, to be sent
        peak += states["gradients"]
    return {
        "parameters": size,
        "batch_size": samples_per_device * data_parallel,
        "samples_per_device": samples_per_device,
        "tokens_per_sample": tokens,
        **states,
        "activations": peak - sum(states.values()),
        "peak": peak,
        "flops_per_device": counted.get_total_flops() * settings.accumulate_grad_batches,
        "strategy": settings.strategy,
        "tensor_parallel": tensor_parallel,
    }


@contextmanager
def fake_world(data_parallel: int, tensor_parallel: int) -> Iterator[dict[str, DeviceMesh]]:
    """Act as rank 0 of a mesh of (data_parallel, tensor_parallel) processes; nothing is sent."""
    dist.init_process_group("fake", rank=0, world_size=data_parallel * tensor_parallel, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (data_parallel, tensor_parallel), mesh_dim_names=(DATA, TENSOR))
        with patch.object(DeviceMesh, "_concatenate", outside_fake_mode(DeviceMesh._concatenate)):
            yield {name: mesh[name] for name in (DATA, TENSOR)}
    finally:
        dist.destroy_process_group()


def outside_fake_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function with real tensors: a mesh reads its own coordinates from one."""

    def call(*args: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return call


def resize_length(batch: Batch, length: int, new_length: int) -> Batch:
    """The batch with `new_length` tokens in a sample: every dimension but the first that was as long as `length`."""

    def resize(value: Tensor) -> Tensor:
        sizes = [value.shape[0], *(new_length if n == length else n for n in value.shape[1:])]
        return torch.zeros(sizes, dtype=value.dtype)

    return {name: resize(value) for name, value in batch.items()}


def state_bytes(adapter: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Return the bytes of weights, gradients and optimizer state on one device, from shapes alone."""

    def local_bytes(tensor: Tensor) -> int:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return prod(local.shape) * local.element_size()

    weights = sum(local_bytes(p) for p in adapter.parameters())
    trained = sum(local_bytes(p) for p in adapter.parameters() if p.requires_grad)
    return {"weights": weights, "gradients": trained, "optimizer": sum(map(local_bytes, optimizer_tensors(optimizer)))}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the tensors of an optimizer's state."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def assess_fit(scale_plan: dict[str, Any], spec: DeviceSpec, config: PlanConfig) -> dict[str, Any]:
    """Return whether the plan fits the device, why, and the seconds of a step at the given MFU."""
    parts = ("weights", "gradients", "optimizer", "activations")
    available, required = (1 - RESERVED) * spec.memory, scale_plan["peak"]
    largest = max(parts, key=lambda part: scale_plan[part])
    if required <= available:
        reason = f"{required / GB:.3g} of {available / GB:.3g} GB"
    else:
        advice = (
            "trainer.activation_checkpointing=true, a smaller data.batch_size, trainer.tensor_parallel"
            if largest == "activations"
            else "more devices with trainer=fsdp, or trainer=tp_fsdp"
        )
        share = f"of which {largest} {scale_plan[largest] / GB:.3g}"
        reason = f"{required / GB:.3g} GB, {share}, exceed {available / GB:.3g}: {advice}"
    bytes_per_sample = scale_plan["activations"] / scale_plan["samples_per_device"]
    return {
        "fits": required <= available,
        "samples_that_fit": max(0, int((available - required + scale_plan["activations"]) // bytes_per_sample)),
        "reason": reason,
        "seconds_per_step": scale_plan["flops_per_device"] / (spec.flops * config.mfu),
    }


def print_scale_plan(scale_plan: dict[str, Any], config: PlanConfig, console: Console) -> None:
    table = Table("one device", "")
    for part in ("weights", "gradients", "optimizer", "activations", "peak"):
        table.add_row(part, f"{scale_plan[part] / GB:.4g} GB")
    table.add_row("operations a step", f"{scale_plan['flops_per_device'] / 1e12:.4g} TFLOP")
    table.add_row("a step", f"{scale_plan['seconds_per_step']:.3g} s at {config.mfu:.0%} of {config.device}'s peak")
    console.print(
        f"{scale_plan['parameters']:,} parameters on {config.devices} × {config.device}, "
        f"strategy {scale_plan['strategy']}, tensor_parallel {scale_plan['tensor_parallel']}; "
        f"{scale_plan['batch_size']} samples a step, {scale_plan['samples_per_device']} on a device, "
        f"of {scale_plan['tokens_per_sample']:,} tokens"
    )
    console.print(table)
    verdict = f"{'fits' if scale_plan['fits'] else 'does not fit'}: {scale_plan['reason']}"
    console.print(f"{verdict}; room for about {scale_plan['samples_that_fit']:,} samples on a device")
