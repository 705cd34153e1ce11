"""Reconstructions of a user's own images."""

from pathlib import Path

import numpy as np
import torch

from domains.vision.decode import image_files
from domains.vision.masked.adapter import Adapter
from domains.vision.masked.evaluate import MAX_SHOWN
from domains.vision.masked.figures import draw_reconstructions
from domains.vision.predict import decode_batches, read_images


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Reconstruct an image file, or every image of a folder; writes reconstructions-1.png …, eight images each.

    An image is resized until it just covers the model's size, then center-cropped.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    for _ in decode_batches(adapter, files, MAX_SHOWN, Path(source)):
        pass  # what cannot be read is said before anything is written
    rng = np.random.default_rng(0)
    adapter.eval()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for start in range(0, len(files), MAX_SHOWN):
        images = read_images(adapter, files[start : start + MAX_SHOWN])
        noise = torch.from_numpy(rng.random((len(images), *adapter.image_shape[1:]), np.float32)).to(adapter.device)
        written.append(folder / f"reconstructions-{len(written) + 1}.png")
        draw_reconstructions(images, *adapter.reconstruct({"images": images, "noise": noise}), written[-1])
    return written
