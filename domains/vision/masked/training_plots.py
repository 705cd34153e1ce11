"""The picture of a masked autoencoder during training."""

from pathlib import Path

from domains.vision.masked.adapter import Adapter
from domains.vision.masked.data import Data
from domains.vision.masked.evaluate import draw_examples


def picture(adapter: Adapter, data: Data, path: Path) -> None:
    """Draw the first validation images, each with its visible part and its reconstruction."""
    draw_examples(adapter, data, "val", path)
