"""Compare the memory that `attend plan` estimates with that of real training steps on this CPU.

    python benchmarks/plan.py

Each case is a separate process: its peak memory during the second and third step, minus its memory before the model was
made. Writes docs/plan.json, with the plan for 7 billion parameters on 1,024 GPUs.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from domains.adapter import mean_loss
from experiments.compose import compose
from experiments.config import OptimizerConfig
from experiments.environment import environment
from experiments.plan import make_scale_plan
from experiments.runs import make_adapter, make_data, to_dataclass, write_json
from experiments.training.optimizers import make_optimizer
from experiments.training.parallel import parallelize

FILE = Path(__file__).parents[1] / "docs" / "plan.json"
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # malloc gives back what is freed, so that what is held is what is used
TEXT = "domain=text model.dim=512 model.depth=6 model.num_heads=8 data.batch_size=4 data.ngram_lookup=[]"
PROTEIN = "domain=protein model.dim=128 model.depth=4"
CASES = {
    "vision, 5.5 M": "domain=vision model=vit_tiny model.patch_size=1 data.batch_size=64 optimizer=adamw",
    "text, 19 M": f"{TEXT} data.context=512 optimizer=adamw",
    "text, 19 M, Muon": f"{TEXT} data.context=256 optimizer=muon",
    "text, recomputed": f"{TEXT} data.context=512 optimizer=adamw trainer.activation_checkpointing=true",
    "protein, 64 residues": f"{PROTEIN} model.pair_dim=64 data.batch_size=8",
    "protein, 128 residues": f"{PROTEIN} model.pair_dim=32 data.crop_size=128 data.batch_size=4",
    "rl, 7 M": "domain=rl model.dim=384 model.depth=4 model.num_heads=4 data.batch_size=64",
}
LARGE = {  # settings, devices, length
    "7 billion, 4,096 tokens": ("domain=text model=7b data.context=4096 optimizer=adamw trainer=fsdp", 1024, None),
    "7 billion, 131,072 tokens": (
        "domain=text model=7b data.context=131072 optimizer=adamw trainer=tp_fsdp trainer.tensor_parallel=8 "
        "trainer.activation_checkpointing=true",
        1024,
        None,
    ),
    "a protein of 1,000": (
        f"{PROTEIN} model.pair_dim=64 data.batch_size=1 trainer.activation_checkpointing=true",
        1,
        1000,
    ),
    "a protein of 2,048": (
        f"{PROTEIN} model.pair_dim=64 data.batch_size=1 trainer.activation_checkpointing=true",
        1,
        2048,
    ),
}


def held(what: str) -> int:
    """Return this process's memory in bytes: VmRSS, or VmHWM, the peak since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(what)))


def measure(words: list[str]) -> int:
    """Return the bytes that three training steps take."""
    config = compose("config", words)
    data = make_data(config)
    spec, size = data.spec(), config.data.batch_size
    rngs = (np.random.default_rng(n) for n in range(size))
    batch = data.batch("train", list(range(size)), rngs)
    small = make_adapter(compose("config", [*words, "model.depth=1", "model.dim=16", "model.num_heads=1"]), spec)
    mean_loss(small.loss(small(batch), batch)).backward()  # what torch loads at its first step is not the model's
    del small
    gc.collect()
    before = held("VmRSS")
    adapter = make_adapter(config, spec)
    parallelize(adapter, None, activation_checkpointing=config.trainer.activation_checkpointing)
    optimizer = make_optimizer(adapter, to_dataclass(OptimizerConfig, config.optimizer))
    for step in range(3):
        if step == 1:
            Path("/proc/self/clear_refs").write_text("5")
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return held("VmHWM") - before


def main() -> None:
    if len(sys.argv) > 1:
        return print(measure(sys.argv[1:]))
    rows = []
    for name, words in CASES.items():
        planned = make_scale_plan(compose("config", words.split()), devices=1, half=False)
        command = [sys.executable, __file__, *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **EXACT})
        measured = int(done.stdout.split()[-1])
        rows.append({"case": name, "settings": words, "measured": measured, "planned": planned["peak"], **planned})
        print(f"{name:24} planned {planned['peak'] / 1e6:6.0f} MB, measured {measured / 1e6:6.0f}", flush=True)
    large = []
    for name, (words, devices, length) in LARGE.items():
        began = time.perf_counter()
        planned = make_scale_plan(compose("config", words.split()), devices, length)
        large.append(
            {"case": name, "settings": words, "devices": devices, "seconds": time.perf_counter() - began, **planned}
        )
        print(f"{name:24} {planned['peak'] / 1e9:.1f} GB, {large[-1]['seconds']:.0f} s", flush=True)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_json(FILE, {"rows": rows, "large": large, "memory_of_planning": most, **environment()})
    print(json.dumps([round(row["planned"] / row["measured"], 2) for row in rows]))


if __name__ == "__main__":
    main()
