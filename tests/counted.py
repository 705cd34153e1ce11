"""Run commands in one process, with `core.attention.attend` replaced by one that counts and forwards.

python tests/counted.py '[["train", "domain=text", …], ["generate", …]]'
prints, for each command, how often attend ran, the modules that ran, and the fused kernels outside of attend.
"""

import json
import sys
from typing import Any

import torch
from torch import nn

from core import attention

counts: dict[str, int] = {}
inside = [0]
attend, kernel = attention.attend, torch.nn.functional.scaled_dot_product_attention


def counting(*tensors: Any, **options: Any) -> torch.Tensor:
    counts["attend"] += not inside[0]
    inside[0] += 1
    try:
        return attend(*tensors, **options)
    finally:
        inside[0] -= 1


def watched(*tensors: Any, **options: Any) -> torch.Tensor:
    counts["outside"] += not inside[0]
    return kernel(*tensors, **options)


def count(module: nn.Module, *_: Any) -> None:
    name = type(module).__name__
    counts[name] = counts.get(name, 0) + 1


attention.attend, torch.nn.functional.scaled_dot_product_attention = counting, watched  # before anything imports them

from experiments.cli import main  # noqa: E402

torch.set_num_threads(1)
nn.modules.module.register_module_forward_pre_hook(count)
found = []
for command in json.loads(sys.argv[1]):
    counts.clear()
    counts.update(attend=0, outside=0, MultiHeadAttention=0, Transformer=0, TransformerBlock=0)
    sys.argv = ["attend", *command]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    found.append(dict(counts))
print(f"\n{json.dumps(found)}")
