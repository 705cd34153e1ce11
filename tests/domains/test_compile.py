"""The default model of every domain is one graph: compiled with its gradients, and exported for any batch and length.

Without the shape checks of the other tests, which are no part of a graph.
"""

import pytest
import torch
from torch.export import Dim, export

from domains.adapter import mean_loss
from experiments.compose import compose
from experiments.runs import make_adapter, make_data

pytestmark = pytest.mark.plain


@pytest.fixture(scope="module", params=["vision", "protein", "rl", "text"])
def domain(request):
    """Its name, its data, and its model with nothing that starts at 0."""
    torch.manual_seed(0)
    config = compose("config", [f"domain={request.param}"])
    data = make_data(config)
    adapter = make_adapter(config, data.spec())
    for parameter in adapter.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return request.param, data, adapter


def gradients(adapter, model, batch):
    """Predictions, and the gradient of every parameter."""
    adapter.zero_grad()
    predictions = model(batch)
    mean_loss(adapter.loss(predictions, batch)).backward()
    said = predictions if isinstance(predictions, torch.Tensor) else predictions[0]  # of the protein's, distances
    return said.detach(), {name: p.grad.clone() for name, p in adapter.named_parameters() if p.grad is not None}


def compiled_equals_eager(domain, backend, tolerance):
    _, data, adapter = domain
    adapter.train()
    batch = data.batch("train", range(3))
    torch.compiler.reset()
    predictions, grads = gradients(adapter, torch.compile(adapter, fullgraph=True, backend=backend), batch)
    want, want_grads = gradients(adapter, adapter, batch)
    torch.testing.assert_close(predictions, want, **tolerance)
    assert grads.keys() == want_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, want_grads[name], **tolerance)


def test_training_is_one_graph(domain):
    compiled_equals_eager(domain, "aot_eager", {"rtol": 0, "atol": 0})


@pytest.mark.slow
def test_the_generated_code_computes_the_same(domain):
    compiled_equals_eager(domain, "inductor", {"rtol": 1e-3, "atol": 1e-5})


@torch.no_grad()
def test_an_exported_model_takes_any_batch_and_length(domain):
    name, data, adapter = domain
    adapter.eval()
    batch = data.batch("train", range(3))
    moving = {key: min(value.dim(), 1 if name == "vision" else 2) for key, value in batch.items()}  # batch, then length
    if name == "protein":
        moving["distance"] = 3  # (B, L, L)
    shapes = {key: dict.fromkeys(range(axes), Dim.DYNAMIC) for key, axes in moving.items()}
    exported = export(adapter, (batch,), dynamic_shapes=(shapes,)).module()
    other = data.batch("test", range(5))
    if name in ("rl", "text"):
        other = {key: value[:, :7] for key, value in other.items()}
    torch.testing.assert_close(exported(other), adapter(other), rtol=1e-4, atol=1e-5)
