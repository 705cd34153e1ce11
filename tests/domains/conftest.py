"""Strategies that the fuzzing tests of the domains share."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


@st.composite
def _changed(draw, good: bytes, marks: Sequence[bytes]) -> bytes:
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(0, 20))
        match draw(st.sampled_from(["change", "cut", "double", "put", "end", "other"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size]
            case "put":
                data[at:at] = draw(st.binary(max_size=12) | st.sampled_from(marks))
            case "end":
                del data[at:]
            case _:
                data[:] = draw(st.binary(max_size=60))
    return bytes(data)


@pytest.fixture(scope="session")
def bytes_changed() -> Callable[[bytes, Sequence[bytes]], SearchStrategy[bytes]]:
    """bytes_changed(good, marks): bytes changed, cut out, doubled, put in, some of them marks; or others altogether."""
    return _changed
