"""What a step costs, against counts by hand."""

import time

import torch
import torch.nn.functional as F
from torch import nn

from experiments.costs import counter, matrix_peak


def test_attention_on_a_cpu_counts_as_two_products():
    B, H, L, M, D = 2, 3, 7, 11, 5
    q, k, v = (torch.randn(B, H, n, D, requires_grad=True) for n in (L, M, M))
    one = 2 * B * H * L * M * D  # of q kᵀ, or of a v
    with counter() as count:
        out = F.scaled_dot_product_attention(q, k, v)
    assert count.get_total_flops() == 2 * one
    with counter() as count:
        out.sum().backward()
    assert count.get_total_flops() == 5 * one  # q kᵀ again, then dv, da, dq, dk


def test_no_product_is_faster_than_the_peak():
    peak, n, began = matrix_peak(torch.device("cpu"), torch.float32), 509, time.perf_counter()
    a = torch.randn(n, n)
    for _ in range(7):
        torch.mm(a, a)
    assert 2 * n**3 * 7 / (time.perf_counter() - began) < 3 * peak  # on a machine that others use
    assert peak > 1e8


def test_a_linear_layer_costs_three_products_to_train():
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    with counter() as count:
        layer(x).sum().backward()
    assert count.get_total_flops() == 3 * 2 * 3 * 5 * 7
