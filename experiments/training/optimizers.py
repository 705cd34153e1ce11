"""AdamW, or Muon for the matrices of the blocks and AdamW for the rest, under one schedule."""

import re
from collections.abc import Iterable
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from experiments.config import OptimizerConfig, OptimizerName, Schedule
from experiments.training.parallel import group_split_weights


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Return the optimizer of a module. Weight decay applies to matrices only, not to norms and biases.

    With name=muon the matrices of a `blocks` list are orthogonalised; embeddings, heads and vectors stay with AdamW.

    With layer_decay each layer's rate is this fraction of the next layer's (Bao et al. 2022, BEiT).

    Raises:
        ValueError: for rates that are not positive.
    """
    if config.lr <= 0 or config.matrix_lr <= 0 or config.weight_decay < 0 or not 0 < config.layer_decay <= 1:
        rates = f"{config.lr}, {config.matrix_lr}, {config.weight_decay} and {config.layer_decay}"
        raise ValueError(
            f"optimizer needs lr > 0, matrix_lr > 0, weight_decay >= 0 and 0 < layer_decay <= 1, got {rates}"
        )
    named_parameters = list(module.named_parameters())
    layers = _layer_numbers([name for name, _ in named_parameters])
    last = max(layers.values())
    groups: dict[tuple[bool, bool, float], list[Tensor]] = {}
    for name, p in named_parameters:
        if p.requires_grad:
            muon = config.name is OptimizerName.muon and p.dim() == 2 and "blocks." in name
            rate = (config.matrix_lr if muon else config.lr) * config.layer_decay ** (last - layers[name])
            groups.setdefault((muon, p.dim() >= 2, rate), []).append(p)
    settings: list[dict] = [
        {"params": params, "lr": rate, "weight_decay": config.weight_decay if matrix else 0.0, "muon": muon}
        for (muon, matrix, rate), params in sorted(groups.items(), key=lambda group: group[0][:2], reverse=True)
    ]
    betas = (0.9, config.beta2)
    if config.name is OptimizerName.muon:
        return MuonAdamW(settings, lr=config.lr, betas=betas, matrices=group_split_weights(named_parameters).values())
    return AdamW([{k: v for k, v in group.items() if k != "muon"} for group in settings], lr=config.lr, betas=betas)


def _layer_numbers(names: list[str]) -> dict[str, int]:
    """Return the layer number of each parameter: 0 before the blocks, n + 1 in block n, the last one after them."""
    layer_numbers, last = {}, 0
    for name in names:
        if block := re.search(r"transformer\.blocks\.(\d+)\.", name):
            layer_numbers[name] = last = int(block[1]) + 1
        else:
            layer_numbers[name] = last and last + 1
    return layer_numbers


def make_schedule(optimizer: Optimizer, config: OptimizerConfig, steps: int) -> LambdaLR:
    """Return a schedule with linear warm-up, a plateau, then a decay to 0 over the last part of `steps`.

    Raises:
        ValueError: for a warm-up outside of [0, 1), or a decay outside of (0, 1].
    """
    if not (0 <= config.warmup < 1 and 0 < config.decay <= 1):
        raise ValueError(f"optimizer needs 0 <= warmup < 1 and 0 < decay <= 1, got {config.warmup} and {config.decay}")
    warmup_steps = max(1, round(config.warmup * steps))
    decay_steps = max(1, min(steps - warmup_steps, round(config.decay * steps)))

    def factor(step: int) -> float:
        warmup_factor = min(1.0, (step + 1) / warmup_steps)
        decay_factor = min(1.0, max(0, steps - step) / decay_steps)  # 1 before the decay begins, 0 at the end
        match config.schedule:
            case Schedule.constant:
                return warmup_factor
            case Schedule.linear:
                return warmup_factor * decay_factor
            case Schedule.cosine:
                return warmup_factor * (1 - cos(pi * decay_factor)) / 2

    return LambdaLR(optimizer, factor)


class MuonAdamW(Optimizer):
    """Muon steps for groups with `muon=True`, AdamW steps for the others; one optimizer, so one schedule and one state.

        M ← β M + G;   W ← (1 - lr·wd) W - lr · √max(1, rows/cols) · orthogonal(G + β M)

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers". Newton-Schulz runs in float32 on a CPU, where
    bfloat16 is many times slower, and in bfloat16 elsewhere. Each device computes it for the full matrix, also of a
    sharded one.

    Args:
        matrices: lists of parameters that form one matrix, stacked row-wise.
    """

    def __init__(
        self,
        groups,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        matrices: Iterable[list[Tensor]] = (),
    ):
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": 0.0, "muon": False})
        self.parts = {p: parts if p is parts[0] else [] for parts in matrices for p in parts}

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not group["muon"]:
                    self._adamw(p, p.grad, self.state[p], group)
                elif parts := self.parts.get(p, [p]):
                    self._muon(parts, group)
        return loss

    def _muon(self, parts: list[Tensor], group: dict) -> None:
        updates = torch.cat([_full_tensor(self._move(p, group)) for p in parts])
        rows, cols = updates.shape
        for p, direction in zip(parts, newton_schulz(updates).split([len(p) for p in parts]), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(_redistribute_like(direction, p), alpha=-group["lr"] * max(1.0, rows / cols) ** 0.5)

    def _move(self, p: Tensor, group: dict) -> Tensor:
        """G + β M."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
        return p.grad.add(momentum, alpha=group["momentum"])

    def _adamw(self, p: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["mean"].lerp_(grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale = (square / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1 ** state["step"]))


def _full_tensor(t: Tensor) -> Tensor:
    return t.full_tensor() if isinstance(t, DTensor) else t


def _redistribute_like(full: Tensor, like: Tensor) -> Tensor:
    """Return each device's shard of a tensor that all devices hold, placed like `like`."""
    if not isinstance(like, DTensor):
        return full
    mesh = like.device_mesh
    return DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False).redistribute(
        mesh, like.placements
    )


def newton_schulz(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximate the nearest (semi-)orthogonal matrix by `steps` Newton-Schulz iterations (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    x = x.mT if matrix.shape[0] > matrix.shape[1] else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)
