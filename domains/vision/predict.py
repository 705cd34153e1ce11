"""Names and probabilities for a user's own images."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from domains.vision.adapter import Adapter
from domains.vision.sources import image_files, read_image


@torch.inference_mode()
def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Classify an image file, or every image of a folder; writes predictions.csv and predictions.json.

    An image is resized until it just covers the model's size, and its middle is taken. A model of the digits wants what
    it has seen: a light stroke on a dark ground that fills the picture.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    adapter.eval()
    rows = []
    for file in files:
        pixels = (
            torch.from_numpy(read_image(file, adapter.images).copy())[None].to(adapter.device) / 255
        )  # (1, C, Y, X)
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
