"""Read what a model attends to, without changing what it computes."""

from torch import Tensor


class Probe:
    """Hand one to a model's call and it fills up; without one, nothing is computed.

    probe = Probe()
    model(x, probe=probe)
    probe.attention[layer]            # (B, H, L, M): probabilities, beside the fused kernel's untouched output
    """

    def __init__(self):
        self.attention: list[Tensor] = []

    def record(self, weights: Tensor) -> None:
        self.attention.append(weights.detach())
