"""One input as a person sees it: what `attend explain` draws attention on, in the domain's own form.

Shapes: B copies of the example · N predictions · K outcomes of each
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from PIL import Image
from torch import Tensor

from domains.adapter import Batch


class Form(Enum):
    """The layouts of elements on a page, which say what the `place` of an element means."""

    image = "image"  # over pictures[0]: left, top, width, height as shares of it; () for a token that is no part of it
    residues = "residues"  # a chain, beside pictures[0], a map of its pairs: no place
    trajectory = (
        "trajectory"  # steps one after the other: the number of its step, whose frame is pictures[step], if any
    )
    words = "words"  # running text: no place


@dataclass(frozen=True)
class Element:
    """A token of the transformer: a short label, and a sentence about it."""

    label: str
    note: str
    place: tuple[float, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG, and what it shows in words."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Explanation:
    """An example, its tokens in the order of the transformer, and what the model said of it.

    Attributes:
        batch: the example alone, a batch of one on the model's device.
        answers: name and value of what the model answered, most important first.
        distribution: predictions for a batch to probabilities (B, N, K). What a removal does is measured on them, as
            the total variation distance ½ Σ_k |p - p'|, from 0 to 1, mean over the N.
        about: what the N predictions and their K outcomes are, in words.
    """

    name: str
    form: Form
    batch: Batch
    elements: list[Element]
    answers: list[tuple[str, str]]
    distribution: Callable[[Any], Tensor]
    about: str
    pictures: list[Picture] = field(default_factory=list)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"
