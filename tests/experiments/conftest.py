"""Fixtures for the tests of commands and of run folders."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


class Payload:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def payload() -> Callable[[Path], object]:
    """payload(path): something that, pickled, makes that file where it is opened."""
    return Payload


@pytest.fixture(scope="session")
def embedded() -> Callable[[str], str]:
    """embedded(page): the JSON that a page of ours carries for its script."""

    def find(page: str) -> str:
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        assert found
        return found[1]

    return find


@pytest.fixture
def same_weights() -> Callable[[Path, Path], bool]:
    """same_weights(one, other): whether two runs ended with the same, bit for bit."""

    def compare(one: Path, other: Path) -> bool:
        ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    return compare
