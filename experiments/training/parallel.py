"""Parallelism for every domain, applied from outside the model.

    tensor parallelism           divides the heads and hidden features of each block among a row of the mesh
    activation checkpointing     recomputes each block's activations in the backward pass
    compilation                  of each block
    sharding (FSDP2)             divides weights, gradients and optimizer state of each block among a column

in this order, which is torchtitan's (`models/llama3/parallelize.py`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.checkpoint import checkpoint

from core.layers import TransformerBlock
from core.mixers.softmax import MultiHeadAttention
from core.parallel import ShareOfHeads
from core.positions import MixedRotary
from domains.adapter import DomainAdapter

DATA, TENSOR = "data_parallel", "tensor_parallel"  # the mesh's columns and rows, as Lightning names them


Mesh = DeviceMesh | Mapping[str, DeviceMesh]  # its columns and rows by name


def parallelize(
    adapter: DomainAdapter, mesh: Mesh | None, *, activation_checkpointing: bool = False, compile: bool = False
) -> None:
    """Prepare a model, in place, for training on a mesh of devices; without a mesh each device holds all of it.

    Raises:
        ValueError: if a block cannot be divided.
    """
    if mesh is not None and mesh[TENSOR].size() > 1:
        if any(isinstance(module, MixedRotary) for module in adapter.modules()):
            raise ValueError("trainer.tensor_parallel divides heads, and position=mixed has angles of each; take axial")
        for block in adapter.modules():
            if isinstance(block, TransformerBlock):
                apply_tensor_parallel(block, mesh[TENSOR])
    for block in find_blocks(adapter):
        if activation_checkpointing:
            block.forward = partial(_checkpointed, block.forward)
        if compile:
            block.compile()
        if mesh is not None:  # FSDP2 gets no backward hook on a block that returns more than tensors
            fully_shard(block, mesh=mesh[DATA], reshard_after_forward=isinstance(block, TransformerBlock))
    if mesh is not None:
        fully_shard(adapter, mesh=mesh[DATA])


def find_blocks(adapter: nn.Module) -> list[nn.Module]:
    """Return the members of every module list called `blocks`."""
    lists = (module for name, module in adapter.named_modules() if name.rpartition(".")[2] == "blocks")
    return [block for module in lists for block in module.children()]


def apply_tensor_parallel(block: TransformerBlock, tensor_mesh: DeviceMesh) -> None:
    """Divide a block's heads and hidden features among the ranks of a mesh row; inputs and outputs are replicated.

    Source: Shoeybi et al. 2019, Megatron-LM.
    """
    mixer, mlp, P = block.mixer, block.feed_forward, tensor_mesh.size()
    if not isinstance(mixer, MultiHeadAttention):
        raise ValueError("trainer.tensor_parallel divides heads, and this model.mixer has none; take softmax or linear")
    divided = {
        "model.num_heads": mixer.num_heads,
        "model.num_kv_heads": mixer.num_kv_heads,
        "hidden features": mlp.out.in_features,
    }
    for name, number in divided.items():
        if number % P:
            raise ValueError(f"the {number} {name} must be a multiple of trainer.tensor_parallel={P}")
    queries, keys = mixer.num_heads * mixer.head_dim, mixer.num_kv_heads * mixer.head_dim
    gates = mlp.up.out_features // mlp.out.in_features  # 2 with SwiGLU
    qkv = SplitLinear(mixer.qkv, (queries, keys, keys))
    up = SplitLinear(mlp.up, (mlp.out.in_features,) * gates)
    plan: dict[str, Any] = {"mixer.out": RowwiseParallel(), "feed_forward.out": RowwiseParallel()}
    for name, module in (("mixer.qkv", qkv), ("feed_forward.up", up)):
        block.set_submodule(name, module)
        plan[name] = PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),))
        plan |= {f"{name}.{n}": ColwiseParallel() for n in range(len(module))}
    for name in ("write", "keep"):  # of the delta rule
        if getattr(mixer, name, None) is not None:
            plan[f"mixer.{name}"] = ColwiseParallel()
    if not isinstance(mixer.q_norm, nn.Identity):  # one gain for all heads: its gradient is the sum over the ranks
        norm = SequenceParallel(sequence_dim=1, use_local_output=True)
        plan |= {"mixer.q_norm": norm, "mixer.k_norm": norm}
    parallelize_module(block, tensor_mesh, plan)
    mixer.num_heads, mixer.num_kv_heads = mixer.num_heads // P, mixer.num_kv_heads // P
    mixer.attend = ShareOfHeads(tensor_mesh.get_group())


class SplitLinear(nn.ModuleList):
    """A Linear split into several whose outputs are concatenated, so that each can be sharded by itself."""

    def __init__(self, whole: nn.Linear, sizes: Sequence[int]):
        super().__init__()
        weights = whole.weight.detach().split(list(sizes))
        biases = [None] * len(sizes) if whole.bias is None else whole.bias.detach().split(list(sizes))
        for weight, bias in zip(weights, biases, strict=True):
            module = nn.Linear(*weight.shape[::-1], bias=bias is not None, device="meta")
            module.weight = nn.Parameter(weight.clone(), whole.weight.requires_grad)
            if bias is not None:
                module.bias = nn.Parameter(bias.clone(), whole.bias.requires_grad)
            self.append(module)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([module(x) for module in self], -1)


def merge_split_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate the parts of a `SplitLinear`, under the names of the undivided model."""
    return {
        name: torch.cat(parts) if len(parts) > 1 else parts[0]
        for name, parts in group_split_weights(state.items()).items()
    }


def group_split_weights(kwargs: Iterable[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """Group the parts of each weight under its name in the undivided model; most weights have one part."""
    groups: dict[str, list[Tensor]] = {}
    for name, weight in kwargs:
        groups.setdefault(re.sub(r"(\.(?:qkv|up))\.\d+(\.\w+)$", r"\1\2", name), []).append(weight)
    return groups


def full_state_dict(adapter: nn.Module) -> dict[str, Tensor]:
    """Return the full weights of a model on the CPU. A collective: all ranks must call it."""
    state = adapter.state_dict()
    return merge_split_weights(
        {name: (t.full_tensor() if isinstance(t, DTensor) else t).cpu() for name, t in state.items()}
    )


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale all gradients so that their norm, over all devices, is at most `max_norm`.

    torch's own function does not support gradients on different meshes.
    """
    groups: dict[Any, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None:
            groups.setdefault(getattr(p, "device_mesh", None), []).append(p)
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups.values()]
    if not groups:  # the step is left out
        return
    total = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for group in groups.values():
        clip_grads_with_norm_(group, max_norm, total)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
