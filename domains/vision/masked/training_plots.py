"""A look at a masked autoencoder in training."""

from pathlib import Path

from domains.vision.masked.adapter import Adapter
from domains.vision.masked.data import Data
from domains.vision.masked.evaluate import draw_examples


def picture(adapter: Adapter, data: Data, path: Path) -> None:
    """The first validation images, each with what is seen of it and what is painted."""
    draw_examples(adapter, data, "val", path)
