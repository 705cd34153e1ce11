"""The choice of a kernel, its reasons and its memory: pure Python on shapes, dtypes and devices.

The rules are those of torch's own chooser (torch.nn.functional.scaled_dot_product_attention, 2.14), written out here
because that one is private, silent, and wrong on tensors without storage. The tests force every planned kernel.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor

from core.bias import Bias, LowRankBias, PairBias
from core.kernels.local import block_size
from core.kernels.pair_bias import CHUNK
from core.kernels.sdpa import plain
from core.masks import Mask, NoMask

BACKENDS = ("auto", "sdpa", "local", "pair_bias", "flex", "reference")
OWN = ("local", "pair_bias")  # kernels of this project
ORDER = {  # what "auto" tries, in turn, before torch's slow path
    "cpu": (*OWN, "sdpa/flash"),
    "cuda": (*OWN, "sdpa/flash", "sdpa/efficient"),  # flex by name alone: it has not been measured here
}
FAR = 4  # block-local pays when the keys are at least so many times the block and its reach
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Plan:
    """The kernel chosen for one attention call.

    Attributes:
        backend: "local" or "pair_bias" (this project's), "sdpa/flash", "sdpa/efficient", "sdpa/math", "flex" (torch's)
            or "reference" (the definition).
        why: one reason for every faster kernel that was passed over, or why this one fits.
        bytes: memory for scores that the kernel takes beside its inputs and output.
        exact: what the reference gives in float32, to rounding: not so in half precision, where kernels round the
            attention weights, and a bias, before they use them.
        deterministic: the same bits at every run.
    """

    backend: str
    why: tuple[str, ...]
    bytes: int
    exact: bool
    deterministic: bool

    def __str__(self) -> str:
        cost = f"; +{self.bytes / 1e6:,.1f} MB for the scores" if self.bytes else ""
        return f"{self.backend}: {'; '.join(self.why)}{cost}"


def plan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = NoMask(),
    bias: Bias | Tensor | None = None,
    backend: str = "auto",
    grad: bool | None = None,
    device: str | None = None,
    strict: bool = False,
) -> Plan:
    """Choose a kernel for attend(q, k, v, …), and say why.

    Args:
        q, k, v: (B, H, L, D), (B, G, M, D), (B, G, M, D); only shapes, dtypes and strides are read, so meta tensors do.
        backend: "auto", or the name of a kernel; "sdpa" leaves the choice among torch's kernels to this function.
        grad: whether gradients will be asked, of the bias, too; as autograd would have it if None.
        device: the kind of device to plan for, that of q if None.
        strict: refuse the slow path.
    Raises:
        ValueError: for an unknown backend or one that cannot do it, or under `strict` where only the slow path is left,
            with the reasons.
    """
    (B, H, L, _), M = q.shape, k.shape[-2]
    mask, bias = mask.simplify(L, M), PairBias(bias) if isinstance(bias, Tensor) else bias
    call = describe(q, k, v, mask, bias, grad, device)
    name, reasons = choose(call, backend, strict)
    return _planned(name, call, (B, H, L, M), mask, reasons)


class Call(NamedTuple):
    """The properties of a call that decide on the kernel. A low-rank bias counts as features of q and k."""

    device: str
    dtype: torch.dtype
    widths: tuple[int, int]  # of queries and keys, of values
    near: tuple[int, int, float, float] | None  # queries, keys, and how far one sees before and after itself, if not ∞
    plain: bool  # no mask, or plain causality
    bias: bool
    trained: bool  # a gradient of the bias is wanted
    grad: bool  # any gradient is wanted
    contiguous: bool


def describe(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Bias | None, grad: bool | None = None, device: str | None = None
) -> Call:
    """The description of a call, by which a choice is remembered."""
    L, M, D = q.shape[-2], k.shape[-2], q.shape[-1]
    left, right = mask.extent()
    pairs, low, rank = (), (), 0
    if bias is not None:
        pairs = [part.values for part in bias.parts if isinstance(part, PairBias)]
        low = [t for part in bias.parts if isinstance(part, LowRankBias) for t in (part.u, part.w)]
        rank = sum(t.shape[-1] for t in low) // 2
    wide = -(-(D + rank) // 8) * 8  # what kernels take
    differentiated = torch.is_grad_enabled() if grad is None else grad

    def wanted(*tensors: Tensor) -> bool:
        return grad or any(t.requires_grad for t in tensors)

    return Call(
        device=device or q.device.type,
        dtype=q.dtype,
        widths=(wide, wide) if rank else (D, v.shape[-1]),
        near=None if left == inf or right == inf else (L, M, left, right),
        plain=plain(mask, L, M),
        bias=bool(pairs),
        trained=differentiated and bool(pairs) and wanted(*pairs),
        grad=differentiated and wanted(q, k, v, *low),
        contiguous=bool(rank) or (q.stride(-1) == k.stride(-1) == v.stride(-1) == 1),
    )


@lru_cache(maxsize=1024)
def choose(call: Call, backend: str = "auto", strict: bool = False) -> tuple[str, tuple[str, ...]]:
    """The name of the kernel, and the reasons; raises ValueError as `plan` does."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; possible: {', '.join(BACKENDS)}")
    objections = {
        "local": _local(call, forced=backend == "local"),
        "pair_bias": _pair_bias(call),
        "flex": _flex(call),
        "sdpa/flash": _cpu_flash(call) if call.device == "cpu" else _cuda_flash(call),
        "sdpa/efficient": _cuda_efficient(call),
    }
    if objections.get(backend):
        raise ValueError(f"backend={backend} cannot run this: it takes no {'; no '.join(objections[backend])}")
    if backend == "reference" or backend in objections:
        return backend, ("asked for by name",)
    reasons = []
    for name in ORDER.get(call.device, OWN):
        if backend == "sdpa" and not name.startswith("sdpa/"):
            continue
        if not objections[name]:
            return name, tuple(reasons)
        if name not in OWN:
            reasons += [f"{name.removeprefix('sdpa/')} takes no {objection}" for objection in objections[name]]
    reasons = reasons or [f"no fused kernel is known for {call.device}"]
    if strict:
        raise ValueError(f"no fused attention kernel applies on {call.device}: {'; '.join(reasons)}")
    return "sdpa/math", tuple(reasons)


def _planned(backend: str, call: Call, sizes: tuple[int, ...], mask: Mask, reasons: tuple[str, ...]) -> Plan:
    """The plan with its memory: what of the scores, or of a mask as large as they are, is held at once."""
    B, _, L, M = sizes
    scores, item = prod(sizes), call.dtype.itemsize
    why = {
        "local": "no query sees farther than {:g} keys before it and {:g} after it".format(*mask.extent()),
        "pair_bias": "the bias needs a gradient, which is summed up in chunks",
    }.get(backend, "fused, no scores in memory")
    held = 0 if call.plain else L * M
    if backend in ("sdpa/math", "reference") or (backend == "flex" and call.device == "cpu"):
        held = 3 * scores
    elif backend == "sdpa/efficient" and call.trained:
        held += scores  # its gradient is written out for every batch entry before it is summed
    elif backend == "pair_bias":
        held += 2 * min(scores, max(CHUNK, scores // max(1, B)))
    elif backend == "flex":
        held //= item  # the mask as bool, while its blocks are made
    elif backend == "local":
        reach = int(sum(mask.extent()))
        held = L * (reach + block_size(*map(int, mask.extent())))
    unsure = backend == "sdpa/efficient" and call.trained
    exact = call.dtype not in HALF
    return Plan(backend, reasons or (why,), held * item, exact=exact, deterministic=not unsure)


def _local(call: Call, forced: bool) -> list[str]:
    objections = []
    if call.near is None:
        objections.append("mask that lets a query see any distance")
    else:
        L, M, left, right = call.near
        if L != M:
            objections.append("cache, where queries and keys differ in number")
        elif not forced and FAR * (left + right + block_size(int(left), int(right))) > M:
            objections.append("reach that is most of the sequence")
    if call.bias:
        objections.append("bias of pairs")
    return objections


def _pair_bias(call: Call) -> list[str]:
    objections = []
    if not call.trained:
        objections.append("bias without a gradient (the fused kernels take that)")
    return objections


def _flex(call: Call) -> list[str]:
    objections = []
    if call.trained:
        objections.append("bias that needs a gradient (its sum would differ from run to run)")
    if call.device == "cpu" and call.grad:
        objections.append("gradient on a CPU (torch has the forward pass alone: use torch.no_grad())")
    if call.device == "cuda" and call.dtype not in (*HALF, torch.float32):
        objections.append(str(call.dtype).removeprefix("torch."))
    if call.device == "cuda" and min(call.widths) < 16:
        objections.append("head width below 16")
    if call.device not in ORDER:
        objections.append(f"{call.device} tensors")
    return objections


def _cpu_flash(call: Call) -> list[str]:
    objections = []
    if call.trained:
        objections.append("bias that needs a gradient")
    if call.widths[0] != call.widths[1]:
        objections.append("head widths that differ ({} and {})".format(*call.widths))
    if not call.contiguous:
        objections.append("input whose last dimension is not contiguous")
    return objections


def _cuda_flash(call: Call) -> list[str]:
    objections = []
    if not call.plain:
        objections.append("mask other than plain causal")
    if call.bias:
        objections.append("bias")
    if call.dtype not in HALF:
        objections.append(str(call.dtype).removeprefix("torch."))
    if call.widths[0] > 256 or call.widths[0] != call.widths[1]:
        objections.append("head widths {}, {}; they must be equal and at most 256".format(*call.widths))
    return objections


def _cuda_efficient(call: Call) -> list[str]:
    objections = []
    if call.dtype not in (*HALF, torch.float32):
        objections.append(str(call.dtype).removeprefix("torch."))
    unit = 4 if call.dtype == torch.float32 else 8
    if any(width % unit for width in call.widths):
        objections.append(f"head width that is no multiple of {unit}")
    return objections
