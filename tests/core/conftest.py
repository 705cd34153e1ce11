"""What the tests of the core share."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor


@pytest.fixture
def same_gradients() -> Callable[..., None]:
    """same_gradients(ours, inputs, theirs, their_inputs=inputs, **tolerance): of one random weighted sum of each."""

    def compare(
        ours: Tensor,
        inputs: Sequence[Tensor],
        theirs: Tensor,
        their_inputs: Sequence[Tensor] | None = None,
        **tolerance,
    ) -> None:
        weights = torch.randn_like(ours)
        pairs = zip(
            torch.autograd.grad((ours * weights).sum(), inputs, retain_graph=True),
            torch.autograd.grad((theirs * weights).sum(), their_inputs or inputs, retain_graph=True),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, **tolerance)

    return compare
