"""Training steps of all domains on a GPU that is not there: fake tensors on `cuda`, in their dtypes, without a wait.

No kernel runs and no value is computed. Prints a JSON line for each case: its name, and its error if it has one.
"""

import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from core.attention import attend
from core.masks import Causal, Padding, Window
from experiments.compose import compose
from experiments.config import OptimizerConfig
from experiments.runs import make_adapter, make_data, to_dataclass
from experiments.training.task import AttentionTask

fake_tensor.init_gpu_context = lambda device: None
torch.cuda._lazy_init = lambda: None
torch.cuda._initialized = True
torch.cuda.manual_seed_all = lambda seed: None
torch.cuda.is_bf16_supported = lambda *_, **__: True

FASTA = ["domain=protein_language", f"data.path={sys.argv[1]}"]
SMALL = ["data.crop_size=30", "model.depth=2"]
CASES = {
    "vision": ["domain=vision"],
    "mae": ["domain=vision", "model=mae"],
    "protein": ["domain=protein", *SMALL],
    "protein, normed": ["domain=protein", "model.qk_norm=true", *SMALL],
    "protein_language": FASTA,
    "rl": ["domain=rl"],
    "text": ["domain=text"],
    "text, grouped and normed": ["domain=text", "model.num_heads=4", "model.num_kv_heads=2", "model.qk_norm=true"],
    "text, relative": ["domain=text", "position=relative", "model.qk_norm=true"],
    "text, window": ["domain=text", "model.mixer=window", "model.window=7"],
    "joint": ["domain=joint"],
}


class NoWait(TorchDispatchMode):
    """Raise an error if values go from the GPU to the host or back. FakeTensorMode does if a size depends on one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        assert name != "_local_scalar_dense" or args[0].device.type == "cpu", "a value is read"
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            free = source.device == out.device or source.dim() == 0 or source.numel() == 0
            assert free, f"{list(source.shape)} are moved to {out.device}"
        return out


def to_cuda(adapter: torch.nn.Module, fake: FakeTensorMode) -> None:
    moved: dict[int, torch.nn.Parameter] = {}  # weights that two modules share stay one
    for module in adapter.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                there = fake.from_tensor(weight).to("cuda").detach()
                module._parameters[name] = moved.setdefault(id(weight), torch.nn.Parameter(there, weight.requires_grad))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = fake.from_tensor(buffer).to("cuda")


def autocast(half: bool):
    return torch.autocast("cuda", torch.bfloat16) if half else nullcontext()


def step(words: list[str], half: bool) -> None:
    config = compose("config", words)
    data = make_data(config)
    spec = data.spec()
    given = data.batch("train", [0, 1, 2], (np.random.default_rng(n) for n in range(3)))
    fake = FakeTensorMode(allow_non_fake_inputs=False)
    adapter = make_adapter(config, spec)
    task = AttentionTask(adapter, to_dataclass(OptimizerConfig, config.optimizer), steps=100)
    trainer: Any = SimpleNamespace(strategy=None, global_step=6, max_steps=100, log_every_n_steps=25)
    task.trainer = trainer
    with fake:
        to_cuda(adapter, fake)
        batch = tree_map(lambda tensor: fake.from_tensor(tensor).to("cuda"), given)
        optimizer: Any = task.configure_optimizers()
        with NoWait():
            with autocast(half):
                loss = task.training_step(batch, 6)
            loss.backward()
            task.on_before_optimizer_step(optimizer["optimizer"])
            optimizer["optimizer"].step()
        assert loss.device.type == "cuda", loss.device
        assert loss.dtype == torch.float32, loss.dtype


def kernel(half: bool) -> None:
    """Attend with q and k in float32, as RMSNorm leaves them under CUDA's autocast, and v in bfloat16."""
    with FakeTensorMode():
        q, k = (torch.randn(2, 3, 5, 8, device="cuda", requires_grad=True) for _ in range(2))
        v = torch.randn(2, 3, 5, 8, device="cuda", dtype=torch.bfloat16 if half else torch.float32, requires_grad=True)
        bias = torch.randn(1, 3, 5, 5, device="cuda", requires_grad=True)
        valid = torch.ones(2, 5, dtype=torch.bool, device="cuda")
        for mask in (Causal(), Padding(valid), Window(2)):
            for added in (None, bias):
                with autocast(half):
                    out = attend(q, k, v, mask=mask, bias=added)
                assert out.dtype == (torch.bfloat16 if half else torch.float32), out.dtype
                out.sum().backward()


def main() -> None:
    for half in (True, False):
        for name, words in {"attend": None, **CASES}.items():
            try:
                kernel(half) if words is None else step(words, half)
                error = None
            except Exception as caught:  # of whatever kind: it is the result
                error = f"{type(caught).__name__}: {caught}"[:600]
            print(json.dumps({"case": f"{name}, {'bf16-mixed' if half else '32-true'}", "error": error}), flush=True)


if __name__ == "__main__":
    main()
