"""Our ViT compared with timm's of the same shape and weights: one training step, and inference, in turns.

Both go from pixels in [0, 1] to logits: ours normalises them itself, for timm's the caller does, here in place.

    python benchmarks/vision.py [--name vit_tiny_patch16_224] [--batch 16] [--repeats 15]

Prints a table and writes benchmarks/vision.json. A ratio below 1 means that ours takes less.
"""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.nn.functional as F

from domains.vision.convert import from_timm
from experiments.bench import peak_memory_of_call, time_call
from experiments.environment import best_device, environment
from experiments.runs import write_json


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--name", default="vit_tiny_patch16_224")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--repeats", type=int, default=15)
    args = options.parse_args()
    device = best_device()
    theirs: Any = timm.create_model(args.name).to(device)
    ours = from_timm(theirs).to(device)
    images = torch.rand(args.batch, *ours.image_shape, device=device)
    labels = torch.randint(len(ours.classes), (args.batch,), device=device)

    def trains(model, call):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def step():
            optimizer.zero_grad()
            F.cross_entropy(call(), labels).backward()
            optimizer.step()

        return step

    def infers(model, call):
        @torch.inference_mode()
        def forward():
            return call()

        return forward

    rows = []
    for what, make in (("training step", trains), ("inference", infers)):
        mode = what == "training step"
        pair = [
            make(ours.train(mode), lambda: ours({"images": images, "labels": labels})),
            make(theirs.train(mode), lambda: theirs((images - ours.mean).div_(ours.std))),
        ]
        seconds = []
        for n in range(args.repeats + 2):  # alternate the order
            turn = [(side, time_call(pair[side], device)) for side in ((0, 1) if n % 2 else (1, 0))]
            seconds.append([taken for _, taken in sorted(turn)])
        seconds = seconds[2:]
        memory = [median(peak_memory_of_call(call, device) for _ in range(5)) for call in pair]
        rows.append(
            {
                "what": what,
                "ours_ms": 1e3 * median(a for a, _ in seconds),
                "theirs_ms": 1e3 * median(b for _, b in seconds),
                "time_ratio": median(a / b for a, b in seconds),
                "ours_peak_mb": memory[0] / 1e6,
                "theirs_peak_mb": memory[1] / 1e6,
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    settings_record = {"model": args.name, "batch": args.batch, "repeats": args.repeats}
    write_json(Path(__file__).with_suffix(".json"), {"rows": rows, **settings_record, **environment()})


if __name__ == "__main__":
    main()
