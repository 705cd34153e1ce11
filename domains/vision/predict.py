"""Names and probabilities for a user's own images."""

import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from domains.vision.adapter import Adapter

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@torch.inference_mode()
def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Classify an image file, or every image of a folder; writes predictions.csv and predictions.json.

    An image is resized to the model's size as it is. One trained on the digits wants what it has seen: a light stroke
    on a dark ground that fills the picture.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    adapter.eval()
    rows = []
    for file in files:
        pixels = read_image(file, adapter.images)[None].to(adapter.device)  # (1, C, Y, X)
        chances = adapter({"images": pixels}).softmax(-1)[0].tolist()
        best = int(np.argmax(chances))
        rows.append({"file": str(file), "class": adapter.classes[best], "probability": chances[best]})
        rows[-1]["probabilities"] = dict(zip(adapter.classes, chances, strict=True))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["file", "class", "probability", *(f"p({name})" for name in adapter.classes)])
        for row in rows:
            chances = [f"{p:.6f}" for p in (row["probability"], *row["probabilities"].values())]
            table.writerow([row["file"], row["class"], *chances])
    return [folder / "predictions.csv", folder / "predictions.json"]


def image_files(source: Path) -> list[Path]:
    """The file itself, or the images of a folder and its sub-folders, in order of their names."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"input={source} does not exist; give an image file or a folder of images")
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    return files


def read_image(file: Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """The file as (C, Y, X) in [0, 1], resized to `shape`."""
    channels, rows, columns = shape
    try:
        with Image.open(file) as image:
            image = image.convert("L" if channels == 1 else "RGB").resize((columns, rows), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error
    pixels = np.asarray(image, dtype=np.float32).reshape(rows, columns, channels) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)
