"""Classes and probabilities of a user's own images."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domains.vision.adapter import Adapter
from domains.vision.decode import decode_image, image_files, warn_remarks
from domains.vision.figures import draw_maps, shorten
from domains.vision.maps import attention_maps, has_attention

BATCH_SIZE = 64  # images in one pass
MAX_SHOWN = 16  # images whose maps are drawn


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Classify an image file, or every image of a folder.

    Writes predictions.csv and predictions.json, and maps.png if the mixer has attention: the patches that the
    predictions of the first 16 images depend on.

    An image is resized until it just covers the model's size, then center-cropped. A model of the digits needs images
    like
    its own: a light stroke on a dark background that fills the picture.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    probs = [
        row
        for images in decode_batches(adapter, files, BATCH_SIZE, Path(source))
        for row in probabilities(adapter, images)
    ]
    rows = []
    for file, row in zip(files, probs, strict=True):
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
    if has_attention(adapter):
        images, shown = read_images(adapter, files[:MAX_SHOWN]), rows[:MAX_SHOWN]
        titles = [
            f"{shorten(Path(row['file']).name)}\n{shorten(row['class'])}\n{100 * row['probability']:.0f} %"
            for row in shown
        ]
        draw_maps(images, attention_maps(adapter, images), titles, [False] * len(shown), folder / "maps.png")
        written.append(folder / "maps.png")
    return written


def printable(name: object) -> str:
    """Return the name of a file, with ? for bytes that are no UTF-8."""
    return str(name).encode(errors="replace").decode()


def decode_batches(adapter: Adapter, files: list[Path], size: int, folder: Path) -> Iterator[Tensor]:
    """Yield all images, (B, C, Y, X) in [0, 1], in batches of `size`; warn of remarks at the end."""
    shown = []
    for start in range(0, len(files), size):
        images = [decode_image(file, adapter.image_shape, adapter.value_ranges) for file in files[start : start + size]]
        shown += [image._replace(pixels=image.pixels[:, :1, :1].copy()) for image in images]  # a view would keep all
        yield torch.from_numpy(np.stack([image.pixels for image in images])).to(adapter.device) / 255
    warn_remarks(files, shown, folder)


def read_images(adapter: Adapter, files: list[Path]) -> Tensor:
    """Return images (B, C, Y, X) in [0, 1], on the model's device, without warnings."""
    pixels = np.stack([decode_image(file, adapter.image_shape, adapter.value_ranges).pixels for file in files])
    return torch.from_numpy(pixels).to(adapter.device) / 255


@torch.inference_mode()
def probabilities(adapter: Adapter, images: Tensor) -> list[list[float]]:
    """Return the probability of each class, for each image."""
    return adapter.eval()({"images": images}).float().softmax(-1).tolist()
