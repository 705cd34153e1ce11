"""Costs of a step, against counts by hand."""

import time

import torch
import torch.nn.functional as F
from torch import nn

from experiments.training.costs import flop_counter, measure_matmul_peak


def test_attention_on_a_cpu_counts_as_two_products():
    B, H, L, M, D = 2, 3, 7, 11, 5
    q, k, v = (torch.randn(B, H, n, D, requires_grad=True) for n in (L, M, M))
    one = 2 * B * H * L * M * D  # of q kᵀ, or of a v
    with flop_counter() as count:
        out = F.scaled_dot_product_attention(q, k, v)
    assert count.get_total_flops() == 2 * one
    with flop_counter() as count:
        out.sum().backward()
    assert count.get_total_flops() == 5 * one  # q kᵀ again, then dv, da, dq, dk


def test_the_peak_is_that_of_the_fastest_product(monkeypatch):
    ticks = iter([0.0, 5.0, 11.0, 13.0, 17.0, 24.0, 30.0, 39.0])  # 5, 2, 7 and 9 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    with flop_counter() as count:
        peak = measure_matmul_peak(torch.device("cpu"), torch.float32)
    assert peak == count.get_total_flops() / 4 / 2


def test_a_linear_layer_costs_three_products_to_train():
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    with flop_counter() as count:
        layer(x).sum().backward()
    assert count.get_total_flops() == 3 * 2 * 3 * 5 * 7
