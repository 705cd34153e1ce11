"""A user's own images, hidden for the most part and painted again."""

from pathlib import Path

import numpy as np
import torch

from domains.vision.masked.adapter import Adapter
from domains.vision.masked.evaluate import SHOWN
from domains.vision.masked.figures import draw_reconstructions
from domains.vision.sources import image_files, read_image


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Paint an image file, or every image of a folder; writes reconstructions-1.png …, eight images each.

    An image is resized until it just covers the model's size, and its middle is taken.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    pixels = torch.from_numpy(np.stack([read_image(file, adapter.images) for file in image_files(Path(source))])) / 255
    noise = torch.from_numpy(np.random.default_rng(0).random((len(pixels), *adapter.images[1:]), np.float32))
    adapter.eval()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (images, draws) in enumerate(zip(pixels.split(SHOWN), noise.split(SHOWN), strict=True), 1):
        batch = {"images": images.to(adapter.device), "noise": draws.to(adapter.device)}
        written.append(folder / f"reconstructions-{number}.png")
        draw_reconstructions(images, *adapter.reconstruct(batch), written[-1])
    return written
