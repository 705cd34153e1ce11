"""Names and probabilities for a user's own images."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domains.vision.adapter import Adapter
from domains.vision.decode import decode, image_files, say_remarks
from domains.vision.figures import draw_maps, short
from domains.vision.maps import all_maps, can_look

AT_ONCE = 64  # images in one pass
SHOWN = 16  # images whose maps are drawn


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Classify an image file, or every image of a folder.

    Writes predictions.csv and predictions.json, and maps.png where the mixer has attention: what the predictions of the
    first 16 images draw on.

    An image is resized until it just covers the model's size, and its middle is taken. A model of the digits wants what
    it has seen: a light stroke on a dark ground that fills the picture.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    chances = [
        row for images in batches(adapter, files, AT_ONCE, Path(source)) for row in probabilities(adapter, images)
    ]
    rows = []
    for file, row in zip(files, chances, strict=True):
        best = int(np.argmax(row))
        rows.append({"file": printable(file), "class": adapter.classes[best], "probability": row[best]})
        rows[-1]["probabilities"] = dict(zip(adapter.classes, row, strict=True))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["file", "class", "probability", *(f"p({name})" for name in adapter.classes)])
        for row in rows:
            shown = [f"{p:.6f}" for p in (row["probability"], *row["probabilities"].values())]
            table.writerow([row["file"], row["class"], *shown])
    written = [folder / "predictions.csv", folder / "predictions.json"]
    if can_look(adapter):
        images, shown = read(adapter, files[:SHOWN]), rows[:SHOWN]
        titles = [
            f"{short(Path(row['file']).name)}\n{short(row['class'])}\n{100 * row['probability']:.0f} %" for row in shown
        ]
        draw_maps(images, all_maps(adapter, images), titles, [False] * len(shown), folder / "maps.png")
        written.append(folder / "maps.png")
    return written


def printable(name: object) -> str:
    """The name of a file, with ? for bytes that are no UTF-8."""
    return str(name).encode(errors="replace").decode()


def batches(adapter: Adapter, files: list[Path], size: int, where: Path) -> Iterator[Tensor]:
    """All images, (B, C, Y, X) in [0, 1], `size` at once; at the end it says what was done to them."""
    read = []
    for start in range(0, len(files), size):
        images = [decode(file, adapter.images, adapter.ranges) for file in files[start : start + size]]
        read += [image._replace(pixels=image.pixels[:, :1, :1].copy()) for image in images]  # a view would keep all
        yield torch.from_numpy(np.stack([image.pixels for image in images])).to(adapter.device) / 255
    say_remarks(files, read, where)


def read(adapter: Adapter, files: list[Path]) -> Tensor:
    """(B, C, Y, X) in [0, 1], on the model's device, without a word."""
    pixels = np.stack([decode(file, adapter.images, adapter.ranges).pixels for file in files])
    return torch.from_numpy(pixels).to(adapter.device) / 255


@torch.inference_mode()
def probabilities(adapter: Adapter, images: Tensor) -> list[list[float]]:
    """Of each class, for each image."""
    return adapter.eval()({"images": images}).float().softmax(-1).tolist()
