"""A model spread over devices: from outside, in one place, for every domain.

    tensor parallel      the heads and hidden features of each block among the ranks of a row of the mesh
    recomputation        of each block's activations on the way back, instead of keeping them
    compilation          each block by itself
    sharding             weights, gradients and optimizer state of each block among the ranks of a column (FSDP2)

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


def parallelize(adapter: DomainAdapter, mesh: Mesh | None, *, recompute: bool = False, compile: bool = False) -> None:
    """Prepares a model, in place, to be trained on a mesh of devices, or on each device whole if there is no mesh.

    Raises:
        ValueError: if a block cannot be divided.
    """
    if mesh is not None and mesh[TENSOR].size() > 1:
        if any(isinstance(part, MixedRotary) for part in adapter.modules()):
            raise ValueError("trainer.tensor_parallel divides heads, and position=mixed has angles of each; take axial")
        for block in adapter.modules():
            if isinstance(block, TransformerBlock):
                apply_tensor_parallel(block, mesh[TENSOR])
    for block in blocks(adapter):
        if recompute:
            block.forward = partial(_again, block.forward)
        if compile:
            block.compile()
        if mesh is not None:  # a block that hands on more than tensors is not told when its gradients begin to come
            fully_shard(block, mesh=mesh[DATA], reshard_after_forward=isinstance(block, TransformerBlock))
    if mesh is not None:
        fully_shard(adapter, mesh=mesh[DATA])


def blocks(adapter: nn.Module) -> list[nn.Module]:
    """What a model is a stack of: the members of every list called `blocks`."""
    lists = (part for name, part in adapter.named_modules() if name.rpartition(".")[2] == "blocks")
    return [block for part in lists for block in part.children()]


def apply_tensor_parallel(block: TransformerBlock, row: DeviceMesh) -> None:
    """Give each rank of a row a share of a block's heads and hidden features; what goes in and out, all have whole.

    Source: Shoeybi et al. 2019, Megatron-LM.
    """
    mixer, inner, P = block.mixer, block.feed_forward, row.size()
    if not isinstance(mixer, MultiHeadAttention):
        raise ValueError("trainer.tensor_parallel divides heads, and this model.mixer has none; take softmax or linear")
    shared = {
        "model.num_heads": mixer.num_heads,
        "model.num_kv_heads": mixer.num_kv_heads,
        "hidden features": inner.out.in_features,
    }
    for name, number in shared.items():
        if number % P:
            raise ValueError(f"the {number} {name} must be a multiple of trainer.tensor_parallel={P}")
    queries, keys = mixer.num_heads * mixer.head_dim, mixer.num_kv_heads * mixer.head_dim
    gates = inner.up.out_features // inner.out.in_features  # 2 with SwiGLU
    qkv = SideBySide(mixer.qkv, (queries, keys, keys))
    up = SideBySide(inner.up, (inner.out.in_features,) * gates)
    plan: dict[str, Any] = {"mixer.out": RowwiseParallel(), "feed_forward.out": RowwiseParallel()}
    for name, part in (("mixer.qkv", qkv), ("feed_forward.up", up)):
        block.set_submodule(name, part)
        plan[name] = PrepareModuleInput(input_layouts=(Replicate(),), desired_input_layouts=(Replicate(),))
        plan |= {f"{name}.{n}": ColwiseParallel() for n in range(len(part))}
    for name in ("write", "keep"):  # of the delta rule
        if getattr(mixer, name, None) is not None:
            plan[f"mixer.{name}"] = ColwiseParallel()
    if not isinstance(mixer.q_norm, nn.Identity):  # one gain for all heads: its gradient is the sum over the ranks
        norm = SequenceParallel(sequence_dim=1, use_local_output=True)
        plan |= {"mixer.q_norm": norm, "mixer.k_norm": norm}
    parallelize_module(block, row, plan)
    mixer.num_heads, mixer.num_kv_heads = mixer.num_heads // P, mixer.num_kv_heads // P
    mixer.attend = ShareOfHeads(row.get_group())


class SideBySide(nn.ModuleList):
    """A Linear as several whose outputs stand side by side, so that each can be divided among ranks by itself."""

    def __init__(self, whole: nn.Linear, sizes: Sequence[int]):
        super().__init__()
        weights = whole.weight.detach().split(list(sizes))
        biases = [None] * len(sizes) if whole.bias is None else whole.bias.detach().split(list(sizes))
        for weight, bias in zip(weights, biases, strict=True):
            part = nn.Linear(*weight.shape[::-1], bias=bias is not None, device="meta")
            part.weight = nn.Parameter(weight.clone(), whole.weight.requires_grad)
            if bias is not None:
                part.bias = nn.Parameter(bias.clone(), whole.bias.requires_grad)
            self.append(part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self], -1)


def joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names that they have in a model that was not divided."""
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in wholes(state.items()).items()}


def wholes(named: Iterable[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """The parts of each weight, most of which have one, by the name that it has in a model that was not divided."""
    found: dict[str, list[Tensor]] = {}
    for name, weight in named:
        found.setdefault(re.sub(r"(\.(?:qkv|up))\.\d+(\.\w+)$", r"\1\2", name), []).append(weight)
    return found


def full_state_dict(adapter: nn.Module) -> dict[str, Tensor]:
    """All weights of a model, whole, on the CPU. All ranks must ask for them, and all get them."""
    state = adapter.state_dict()
    return joined({name: (t.full_tensor() if isinstance(t, DTensor) else t).cpu() for name, t in state.items()})


def clip(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale all gradients so that their norm, over all devices, is at most `limit`.

    torch's own function takes no gradients that lie on different meshes.
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
        clip_grads_with_norm_(group, limit, total)


def _again(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
