"""Our ViT beside timm's of the same shape, with the same weights: one training step, and inference, in turns.

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
from experiments.bench import clock, peak
from experiments.environment import best_device, environment
from experiments.runs import write_json


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--name", default="vit_tiny_patch16_224")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--repeats", type=int, default=15)
    given = options.parse_args()
    device = best_device()
    theirs: Any = timm.create_model(given.name).to(device)
    ours = from_timm(theirs).to(device)
    images = torch.rand(given.batch, *ours.image_shape, device=device)
    labels = torch.randint(len(ours.classes), (given.batch,), device=device)

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
        for n in range(given.repeats + 2):  # who comes first changes from turn to turn
            turn = [(side, clock(pair[side], device)) for side in ((0, 1) if n % 2 else (1, 0))]
            seconds.append([taken for _, taken in sorted(turn)])
        seconds = seconds[2:]
        memory = [median(peak(call, device) for _ in range(5)) for call in pair]
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
    told = {"model": given.name, "batch": given.batch, "repeats": given.repeats}
    write_json(Path(__file__).with_suffix(".json"), {"rows": rows, **told, **environment()})


if __name__ == "__main__":
    main()
