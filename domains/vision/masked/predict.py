"""A user's own images, hidden for the most part and painted again."""

from pathlib import Path

import numpy as np
import torch

from domains.vision.decode import image_files
from domains.vision.masked.adapter import Adapter
from domains.vision.masked.evaluate import SHOWN
from domains.vision.masked.figures import draw_reconstructions
from domains.vision.predict import batches, read


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Paint an image file, or every image of a folder; writes reconstructions-1.png …, eight images each.

    An image is resized until it just covers the model's size, and its middle is taken.

    Raises:
        ValueError: if there is no image, or one cannot be read; nothing is written then.
    """
    files = image_files(Path(source))
    for _ in batches(adapter, files, SHOWN, Path(source)):
        pass  # what cannot be read is said before anything is written
    rng = np.random.default_rng(0)
    adapter.eval()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for start in range(0, len(files), SHOWN):
        images = read(adapter, files[start : start + SHOWN])
        noise = torch.from_numpy(rng.random((len(images), *adapter.images[1:]), np.float32)).to(adapter.device)
        written.append(folder / f"reconstructions-{len(written) + 1}.png")
        draw_reconstructions(images, *adapter.reconstruct({"images": images, "noise": noise}), written[-1])
    return written
