"""What holds for every domain: one attention, fused kernels, weights that travel."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import core.mixers.softmax
from core.attention import reference
from core.planner import plan
from domains.adapter import mean_loss, mean_metrics
from experiments.compose import compose
from experiments.runs import load_run, make_adapter, make_data, write_config, write_weights

DOMAINS = ["vision", "protein", "rl", "text"]


@pytest.fixture(scope="module", params=DOMAINS)
def domain(request):
    """The default configuration of a domain, its data, its model, and one training batch."""
    torch.manual_seed(0)
    config = compose("config", [f"domain={request.param}", "data.batch_size=3"])
    data = make_data(config)
    adapter = make_adapter(config, data.spec())
    for parameter in adapter.parameters():  # zero_init would hide the attention
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return config, data, adapter, data.batch("train", [0, 1, 2])


def said(adapter, batch) -> torch.Tensor:
    """All that a model predicts, as one tensor."""
    predictions = adapter(batch)
    parts = [predictions] if isinstance(predictions, torch.Tensor) else predictions
    return torch.cat([part.flatten() for part in parts if part is not None])


def test_every_block_goes_through_attend(domain, monkeypatch):
    config, _, adapter, batch = domain
    calls = []

    def spy(q, k, v, *, mask, bias):
        calls.append(q.shape)
        return reference(q, k, v, mask=mask, bias=bias)

    adapter.eval()
    with torch.no_grad():
        fused = said(adapter, batch)
        monkeypatch.setattr(core.mixers.softmax, "attend", spy)
        torch.testing.assert_close(said(adapter, batch), fused, rtol=1e-3, atol=1e-4)
        assert len(calls) == config.model.depth
        monkeypatch.setattr(core.mixers.softmax, "attend", lambda q, k, v, **_: torch.zeros_like(q))
        assert not torch.allclose(said(adapter, batch), fused, atol=1e-3)


def test_no_default_model_leaves_the_fused_kernel(domain, monkeypatch):
    """Not even the protein's trained pair bias, for which torch has no fused kernel on a CPU."""
    config, _, adapter, batch = domain
    plans = []
    attend = core.mixers.softmax.attend

    def spy(q, k, v, **options):
        plans.append(plan(q, k, v, **options))
        return attend(q, k, v, **options)

    monkeypatch.setattr(core.mixers.softmax, "attend", spy)
    adapter.train()
    trained_bias = config.domain.name == "protein"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
    assert len(plans) == config.model.depth
    for chosen in plans:
        assert chosen.backend == ("pair_bias" if trained_bias else "sdpa/flash")
    adapter.eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        adapter(batch)


def test_every_parameter_learns(domain):
    _, _, adapter, batch = domain
    adapter.train()
    adapter.zero_grad()
    mean_loss(adapter.loss(adapter(batch), batch)).backward()
    still = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_sums_and_counts_of_a_loss_add_up_over_parts_of_a_batch(domain):
    _, data, adapter, _ = domain
    adapter.eval()
    with torch.no_grad():
        whole, *parts = (
            adapter.loss(adapter(batch), batch)
            for batch in (data.batch("train", some) for some in ([0, 1, 2], [0], [1, 2]))
        )
    assert whole.sum.shape == whole.count.shape == (len(whole.sum),)
    torch.testing.assert_close(sum(part.count for part in parts), whole.count)
    torch.testing.assert_close(sum(part.sum for part in parts), whole.sum, rtol=1e-4, atol=1e-4)


def test_a_run_folder_gives_the_model_back(domain, tmp_path):
    config, data, adapter, batch = domain
    write_config(tmp_path, config, data.spec())
    write_weights(tmp_path, adapter.state_dict())
    loaded_config, loaded = load_run(tmp_path)
    assert loaded_config.domain == config.domain
    adapter.eval()
    with torch.no_grad():
        assert torch.equal(said(loaded, batch), said(adapter, batch))


def test_splits_do_not_overlap_and_batches_repeat(domain):
    _, data, _, batch = domain
    again = data.batch("train", [0, 1, 2])
    for name, tensor in batch.items():
        assert torch.equal(tensor, again[name])
    assert min(data.size(split) for split in ("train", "val", "test")) > 0


def test_measures_do_not_depend_on_the_batch_size(domain):
    _, data, adapter, _ = domain
    count = min(5, data.size("val"))
    whole = mean_metrics(adapter, [data.batch("val", range(count))])
    parts = mean_metrics(adapter, [data.batch("val", [i]) for i in range(count)])
    assert set(whole) == set(adapter.metric_names)
    assert whole == pytest.approx(parts, rel=1e-3, abs=1e-4)
