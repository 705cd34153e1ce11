"""Sampling, optimizers and schedules."""

import pytest
import torch
from torch import nn

from core.config import TransformerConfig
from core.layers import Transformer
from domains.sampling import StepDataset, StepSampler
from experiments.config import OptimizerConfig, OptimizerName, Schedule
from experiments.training.optimizers import make_optimizer, make_schedule, newton_schulz


def drawn(step, rank=0, world=1, size=7, seed=0):
    """What a step draws: (sample, a number from its own generator)."""

    def batch(indices, rngs):
        return {"drawn": torch.tensor([(i, rng.integers(1 << 30)) for i, rng in zip(indices, rngs, strict=True)])}

    return [tuple(pair) for pair in StepDataset(size, 6, seed, batch, rank, world)[step]["drawn"].tolist()]


def test_every_sample_comes_once_a_pass():
    stream = [index for step in range(7) for index, _ in drawn(step)]  # 42 = 6 passes over 7 samples
    for start in range(0, 42, 7):
        assert sorted(stream[start : start + 7]) == list(range(7))
    assert len({tuple(stream[start : start + 7]) for start in range(0, 42, 7)}) > 1


def test_a_step_is_the_same_for_any_number_of_processes():
    one, other = drawn(5), drawn(5, seed=1)
    assert (
        sorted(one)
        == sorted(drawn(5, 0, 2) + drawn(5, 1, 2))
        == sorted(pair for r in range(3) for pair in drawn(5, r, 3))
    )
    assert one == drawn(5) != other
    with pytest.raises(ValueError, match="batch_size=6 must be a positive multiple of the 4 processes"):
        drawn(0, world=4)
    with pytest.raises(ValueError, match="empty"):
        drawn(0, size=0)


def test_a_resumed_sampler_goes_on():
    assert list(StepSampler(3, 7)) == [3, 4, 5, 6]
    assert len(StepSampler(3, 7)) == 7


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(5, 11), nn.Linear(11, 7)])
        self.norm, self.head = nn.LayerNorm(7), nn.Linear(7, 3)

    def forward(self, x):
        first, second = self.blocks
        return self.head(self.norm(second(first(x).relu())))


def losses(net, optimizer, steps=20):
    x, y = torch.randn(13, 5, generator=torch.Generator().manual_seed(1)), torch.arange(13) % 3
    seen = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


def test_muon_groups_take_matrices_of_blocks_alone():
    net = Network()
    optimizer = make_optimizer(net, OptimizerConfig(name=OptimizerName.muon))
    muon = {id(p) for group in optimizer.param_groups if group.get("muon") for p in group["params"]}
    assert muon == {id(p) for name, p in net.named_parameters() if name in ("blocks.0.weight", "blocks.1.weight")}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))


def test_the_adamw_part_is_torchs_adamw():
    ours, theirs = Network(), Network()
    config = OptimizerConfig(name=OptimizerName.muon, lr=1e-2, weight_decay=0.1)
    for net in (ours, theirs):
        net.blocks.requires_grad_(False)  # what is left is AdamW's
    mine = make_optimizer(ours, config)
    reference = make_optimizer(theirs, OptimizerConfig(name=OptimizerName.adamw, lr=1e-2, weight_decay=0.1))
    assert losses(ours, mine) == pytest.approx(losses(theirs, reference), rel=1e-5)


def test_the_muon_part_is_torchs_muon_within_bfloat16():
    ours, theirs = Network(), Network()
    config = OptimizerConfig(name=OptimizerName.muon, matrix_lr=0.02, weight_decay=0.1)
    for net in (ours, theirs):
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in ("blocks.0.weight", "blocks.1.weight"))
    mine = make_optimizer(ours, config)
    matrices = [p for p in theirs.parameters() if p.requires_grad]
    reference = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    assert losses(ours, mine, 5) == pytest.approx(losses(theirs, reference, 5), rel=1e-2)


@pytest.mark.parametrize("shape", [(7, 13), (13, 7), (11, 11)])
def test_orthogonal_flattens_the_spectrum(shape):
    singular = torch.linalg.svdvals(newton_schulz(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert singular.max() < 1.3
    assert singular.median() > 0.6


def test_learning_lowers_the_loss():
    for name in OptimizerName:
        net = Network()
        seen = losses(net, make_optimizer(net, OptimizerConfig(name=name, lr=1e-2)), 60)
        assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("kind", Schedule)
def test_schedules_warm_up_and_fall(kind):
    config = OptimizerConfig(lr=2.0, schedule=kind, warmup=0.1, decay=0.5)
    optimizer = make_optimizer(Network(), config)
    schedule = make_schedule(optimizer, config, steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:50] == pytest.approx([2.0] * 41)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 if kind is Schedule.constant else 0.0)
    assert rates[75] == pytest.approx(2.0 if kind is Schedule.constant else 1.0, rel=0.05)


def test_rates_that_cannot_be():
    with pytest.raises(ValueError, match="lr > 0"):
        make_optimizer(Network(), OptimizerConfig(lr=0.0))
    with pytest.raises(ValueError, match="warmup"):
        make_schedule(make_optimizer(Network(), OptimizerConfig()), OptimizerConfig(warmup=1.0), 10)


def test_layer_decay_slows_the_first_layers():
    """Rates after the warm-up, and steps that are as much shorter."""
    config = TransformerConfig(dim=12, depth=3, num_heads=2)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Linear(5, 12)
            self.transformer = Transformer(config)
            self.head = nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.transformer(self.embed(x)))

    for optimizer_name in OptimizerName:
        model = Model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = make_optimizer(
            model, OptimizerConfig(optimizer_name, lr=1e-3, matrix_lr=0.01, weight_decay=0.0, layer_decay=0.5)
        )
        make_schedule(optimizer, OptimizerConfig(schedule=Schedule.constant), 1)
        model(torch.randn(7, 11, 5)).square().sum().backward()
        optimizer.step()
        moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
        assert moved["head.bias"] == pytest.approx(1e-3, rel=1e-2)  # Adam's first step is its rate
        assert moved["transformer.norm.bias"] == pytest.approx(1e-3, rel=1e-2)
        for n in range(3):
            assert moved[f"transformer.blocks.{n}.norm1.bias"] == pytest.approx(1e-3 * 0.5 ** (3 - n), rel=1e-2)
        assert moved["embed.weight"] == pytest.approx(1e-3 * 0.5**4, rel=1e-2)
        first, last = (moved[f"transformer.blocks.{n}.feed_forward.up.weight"] for n in (0, 2))
        assert first / last == pytest.approx(0.25, rel=0.7)  # Muon's steps are not all of one size
    with pytest.raises(ValueError, match="layer_decay"):
        make_optimizer(Model(), OptimizerConfig(layer_decay=0.0))
