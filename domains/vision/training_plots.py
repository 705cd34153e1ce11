"""The picture of a model during training."""

from pathlib import Path

import torch

from domains.vision.adapter import Adapter
from domains.vision.data import Data
from domains.vision.evaluate import MAX_SHOWN, draw_examples, first_of_each_class


def picture(adapter: Adapter, data: Data, path: Path) -> None:
    """Draw maps of one validation image of each of the first 10 classes.

    Raises:
        ValueError: for a mixer that has no attention to look at.
    """
    labels = torch.from_numpy(data.images.labels[data.images.splits["val"]])
    batch = data.batch("val", first_of_each_class(labels, len(adapter.classes))[:MAX_SHOWN])
    with torch.no_grad():
        guesses = adapter({"images": batch["images"].to(adapter.device)}).argmax(-1).cpu()
    draw_examples(adapter, batch, guesses, path)
