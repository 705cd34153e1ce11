"""Which kernel will run, why, and what it costs: pure Python on shapes, dtypes and devices.

The rules are those of torch's own chooser (torch.nn.functional.scaled_dot_product_attention, 2.14), written out here
because that one is private, silent, and wrong on tensors without storage. The tests force every planned kernel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.masks import Causal, Everything, Mask

BACKENDS = ("auto", "sdpa", "reference")


@dataclass(frozen=True)
class Plan:
    """The kernel chosen for one attention call.

    Attributes:
        backend: "sdpa/flash", "sdpa/efficient", "sdpa/math" (torch's kernels) or "reference".
        why: one reason a line for every faster kernel that was passed over, or why this one fits.
        bytes: memory for scores that the kernel takes beside its inputs and output.
        deterministic: the same bits at every run.
    """

    backend: str
    why: tuple[str, ...]
    bytes: int
    deterministic: bool = True

    def __str__(self) -> str:
        cost = f"; +{self.bytes / 1e6:,.0f} MB for the scores" if self.bytes else ""
        return f"{self.backend}: {'; '.join(self.why)}{cost}"


def plan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    grad: bool | None = None,
    device: str | None = None,
    strict: bool = False,
) -> Plan:
    """Choose a kernel for attend(q, k, v, …).

    Args:
        q, k, v: (B, H, L, D), (B, G, M, D), (B, G, M, D); only shapes, dtypes and strides are read, so meta tensors do.
        backend: "auto" or "sdpa" (torch's fused kernels where they apply) or "reference" (the definition).
        grad: whether a gradient will be asked of `bias`; as autograd would have it if None.
        device: the kind of device to plan for, that of q if None.
        strict: refuse the slow path.
    Raises:
        ValueError: for an unknown backend, or under `strict` where only the slow path is left, with the reasons.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; possible: {', '.join(BACKENDS)}")
    if grad is None:
        grad = torch.is_grad_enabled() and bias is not None and bias.requires_grad
    B, H, L, _ = q.shape
    scores = B * H * L * k.shape[-2] * q.element_size()
    if backend == "reference":
        return Plan("reference", ("asked for by name",), 3 * scores)

    kind = device or q.device.type
    masked = not (mask is None or isinstance(mask, Everything) or _plain_causal(mask, L, k.shape[-2]))
    if kind == "cuda":
        candidates = {"flash": _cuda_flash(q, k, v, masked, bias), "efficient": _cuda_efficient(q, v)}
    elif kind == "cpu":
        candidates = {"flash": _cpu_flash(q, k, v, dropout, bias, grad)}
    else:
        candidates = {}
    reasons = []
    for name, objections in candidates.items():
        if not objections:
            # On CUDA the gradient of a bias is first written out for every batch entry, and its sum is atomic.
            spread = kind == "cuda" and bias is not None and grad
            why = tuple(reasons) or ("fused, no scores in memory",)
            return Plan(f"sdpa/{name}", why, scores if spread else 0, deterministic=not spread)
        reasons += [f"{name} takes no {objection}" for objection in objections]
    why = tuple(reasons) or (f"no fused kernel is known for {kind}",)
    if strict:
        raise ValueError(f"no fused attention kernel applies on {kind}: {'; '.join(why)}")
    return Plan("sdpa/math", why, 3 * scores)


def _plain_causal(mask: Mask, queries: int, keys: int) -> bool:
    return isinstance(mask, Causal) and queries in (1, keys)


def _cpu_flash(q: Tensor, k: Tensor, v: Tensor, dropout: float, bias: Tensor | None, grad: bool) -> list[str]:
    objections = []
    if dropout > 0:
        objections.append("attention dropout")
    if bias is not None and grad:
        objections.append("bias that needs a gradient")
    if q.shape[-1] != v.shape[-1]:
        objections.append(f"head widths that differ ({q.shape[-1]} and {v.shape[-1]})")
    if any(t.stride(-1) != 1 for t in (q, k, v)):
        objections.append("input whose last dimension is not contiguous")
    return objections


def _cuda_flash(q: Tensor, k: Tensor, v: Tensor, masked: bool, bias: Tensor | None) -> list[str]:
    objections = []
    if masked:
        objections.append("mask other than plain causal")
    if bias is not None:
        objections.append("bias")
    if q.dtype not in (torch.float16, torch.bfloat16):
        objections.append(f"{str(q.dtype).removeprefix('torch.')}")
    if q.shape[-1] > 256 or q.shape[-1] != v.shape[-1]:
        objections.append(f"head widths ({q.shape[-1]}, {v.shape[-1]}); they must be equal and at most 256")
    return objections


def _cuda_efficient(q: Tensor, v: Tensor) -> list[str]:
    objections = []
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        objections.append(f"{str(q.dtype).removeprefix('torch.')}")
    unit = 4 if q.dtype == torch.float32 else 8
    if q.shape[-1] % unit or v.shape[-1] % unit:
        objections.append(f"head width that is no multiple of {unit}")
    return objections
