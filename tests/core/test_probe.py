"""A probe edits what it is asked to edit, and says what it cannot."""

import pytest
import torch

from core.config import TransformerConfig
from core.layers import Transformer
from core.masks import Causal
from core.probe import Probe

B, L, C, HEADS, DEPTH = 2, 7, 24, 3, 2


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS)).eval()


def tokens():
    return torch.randn(B, L, C, generator=torch.Generator().manual_seed(1))


def test_an_ablated_head_is_silent_and_only_later_blocks_notice(model):
    probe = Probe("*.heads", "*.residual", edit={"1.heads": lambda heads: heads.index_fill(1, torch.tensor([2]), 0.0)})
    clean = Probe("*.heads", "*.residual")
    assert not torch.allclose(model(tokens(), mask=Causal(), probe=probe), model(tokens(), mask=Causal(), probe=clean))
    assert probe["1.heads"][:, 2].abs().max() == 0
    assert torch.equal(probe["1.heads"][:, :2], clean["1.heads"][:, :2])
    assert torch.equal(probe["0.residual"], clean["0.residual"])
    assert not torch.allclose(probe["1.residual"], clean["1.residual"])


def test_a_patched_residual_carries_everything(model):
    other = Probe("0.residual")
    wanted = model(tokens().flip(0), probe=other)
    patched = model(tokens(), probe=Probe(edit={"0.residual": lambda _: other["0.residual"]}))
    assert torch.equal(patched, wanted)


def test_weights_times_values_are_the_heads(model):
    probe = Probe("*.attention", "*.v", "*.heads")
    model(tokens(), mask=Causal(), probe=probe)
    for n in range(DEPTH):
        torch.testing.assert_close(probe[f"{n}.attention"] @ probe[f"{n}.v"], probe[f"{n}.heads"], rtol=1e-4, atol=1e-5)


def test_what_is_read_can_be_reduced_at_once(model):
    probe = Probe(reduce=lambda name, weights: weights.mean(1))
    model(tokens(), probe=probe)
    assert [value.shape for value in probe.attention] == [(B, L, L)] * DEPTH


@pytest.mark.parametrize("make", [lambda: Probe("0.scores"), lambda: Probe(edit={"0.attention": lambda x: x})])
def test_a_site_that_is_none(make):
    with pytest.raises(ValueError, match="cannot be probed; possible"):
        make()
