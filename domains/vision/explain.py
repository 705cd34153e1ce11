"""Images as `attend explain` shows them.

Shapes: B batch · C channels · Y, X pixels · K classes
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from domains.data_warnings import warn_data
from domains.explanation import Element, Explanation, Form, Picture, percent, png
from domains.vision.adapter import Adapter
from domains.vision.data import Data
from domains.vision.decode import image_files
from domains.vision.predict import decode_batches, printable

MAX_IMAGES = 4  # images of a folder on one page


@torch.inference_mode()
def explanations(adapter: Adapter, source: str) -> list[Explanation]:
    """Return the explanation of an image file, or of the first 4 of a folder.

    Raises:
        ValueError: if there is no image, or one cannot be read.
    """
    files = image_files(Path(source))
    if len(files) > MAX_IMAGES:
        warn_data(f"the first {MAX_IMAGES} of the {len(files)} images in {source} are shown")
    images = [*decode_batches(adapter, files[:MAX_IMAGES], 1, Path(source))]
    return [explanation(adapter, printable(file.name), image) for file, image in zip(files, images, strict=False)]


@torch.inference_mode()
def example(adapter: Adapter, data: Data) -> Explanation:
    """Return the explanation of the first image of the test split."""
    batch = data.batch("test", [0])
    label = adapter.classes[int(batch["labels"][0])]
    return explanation(adapter, f"first image of the test split, of class {label}", batch["images"].to(adapter.device))


def explanation(adapter: Adapter, name: str, images: Tensor) -> Explanation:
    """Return the explanation of one image, (1, C, Y, X)."""
    batch = {"images": images}
    probabilities, top_classes = adapter(batch)[0].float().softmax(-1).topk(min(3, len(adapter.classes)))
    pixels = (batch["images"][0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()  # (Y, X, C)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    names = [adapter.classes[k] for k in top_classes.tolist()]
    return Explanation(
        name=name,
        form=Form.image,
        batch=batch,
        elements=elements(adapter),
        answers=[(name, percent(probability)) for name, probability in zip(names, probabilities.tolist(), strict=True)],
        distribution=lambda predictions: predictions.float().softmax(-1)[:, None],  # (B, 1, K)
        about=f"one prediction: the probability of each of {len(adapter.classes)} classes",
        pictures=[Picture(png(picture), f"{name}, as the model sees it: {names[0]} is its answer")],
    )


def elements(adapter: Adapter) -> list[Element]:
    """Return class token and registers, then the patches row by row."""
    (h, w), tokens = adapter.grid, ["class"] * adapter.config.class_token
    tokens += [f"register {n}" for n in range(1, adapter.config.reg_tokens + 1)]
    patches = [
        Element(f"{y + 1},{x + 1}", f"the patch in row {y + 1}, column {x + 1}", (x / w, y / h, 1 / w, 1 / h))
        for y in range(h)
        for x in range(w)
    ]
    return [Element(token, f"the {token} token, which is no part of the image") for token in tokens] + patches
