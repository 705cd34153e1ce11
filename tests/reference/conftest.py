"""What the comparisons with other libraries share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """randomise(module, seed=0): every parameter becomes 0.2·randn, about 1 where all of it was 1; in eval mode.

    So norms, biases and scales all count, and a row of a table that mixes two of them up is seen.
    """

    @torch.no_grad()
    def change(module: nn.Module, seed: int = 0) -> nn.Module:
        draw = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            centre = 1.0 if parameter.dim() == 1 and (parameter == 1).all() else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=draw))
        return module.eval()

    return change
