"""The protein domain through its public doors. Sizes are different primes, so that a swapped axis fails."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import domains.protein.pair
from core.config import Mixer, PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.data_warnings import DataWarning
from domains.protein.adapter import Adapter
from domains.protein.alphabet import AMINO_ACIDS, UNKNOWN, encode_residues
from domains.protein.chain import Chain, one_hot, virtual_cb
from domains.protein.config import Bins, DataConfig, ModelConfig, OuterProductKind
from domains.protein.data import Data, collate, two_stretches
from domains.protein.evaluate import evaluate
from domains.protein.explain import explanation
from domains.protein.figures import HIT, UNSEEN, Panel, draw
from domains.protein.files import read_chains
from domains.protein.metrics import (
    RANGES,
    ProfilePairs,
    SeparationPrior,
    calibration,
    distances,
    lddt,
    median_distance,
    precision,
    ranked,
)
from domains.protein.pair import FullOuterProduct, RankBias, TriangleAttention, TriangleMultiplication
from domains.protein.predict import predict, predict_chain, write
from domains.sampling import StepDataset
from experiments.config import OptimizerConfig
from experiments.training.optimizers import make_optimizer


def rngs(*seeds: int):
    return iter([np.random.default_rng(seed) for seed in seeds])


def random_chain(length: int, seed: int = 0, name: str = "1ABC_A") -> Chain:
    rng = np.random.default_rng(seed)
    profile = rng.dirichlet(np.ones(20), length).astype(np.float32)
    return Chain(
        name,
        rng.integers(0, 20, length),
        profile,
        (3.8 * rng.standard_normal((length, 3)).cumsum(0)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def data() -> Data:
    data = Data(DataConfig(batch_size=3, crop_size=26))
    data.setup()
    return data


def make_adapter(data: Data, **changes) -> Adapter:
    torch.manual_seed(0)
    config = replace(
        ModelConfig(dim=12, depth=2, num_heads=3, mlp_ratio=2, pair_dim=10, conv_radius=2, max_relative_position=7),
        **changes,
    )
    return Adapter(config, PositionConfig(PositionKind.rotary), data.spec()).eval()


@pytest.fixture(scope="module")
def trained(data) -> Adapter:
    """A model after a very short training."""
    adapter = make_adapter(data, dim=24, pair_dim=16).train()
    optimizer = make_optimizer(adapter, OptimizerConfig(lr=1e-2))
    batches = StepDataset(data.size("train"), 4, 0, data._train_batch)
    losses = []
    for step in range(30):
        loss = mean_loss(adapter.loss(adapter(batches[step]), batches[step]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.95 * losses[0]
    return adapter.eval()


# data


def test_splits_are_disjoint_and_of_the_promised_size(data):
    names = {split: {chain.name for chain in data.splits[split]} for split in ("train", "val", "test")}
    assert {split: len(chains) for split, chains in names.items()} == {"train": 900, "val": 40, "test": 60}
    assert len(names["train"] | names["val"] | names["test"]) == 1000
    sequences = {chain.sequence.tobytes() for chains in data.splits.values() for chain in chains}
    assert len(sequences) > 990
    test = {chain.sequence.tobytes() for chain in data.splits["test"]}
    assert not test & {chain.sequence.tobytes() for chain in data.splits["train"] + data.splits["val"]}


def test_chains_are_proteins(data):
    for chain in data.splits["test"] + data.splits["val"]:
        assert 40 <= len(chain) <= 150
        assert chain.sequence.max() < UNKNOWN  # every residue is one of the twenty
        assert np.allclose(chain.profile.sum(1), 1, atol=0.03)
        steps = np.linalg.norm(np.diff(chain.cb, axis=0), axis=1)
        assert 4 < steps.mean() < 6.5  # Å between the Cβ of neighbours
        assert steps.max() < 8
    own = np.mean([chain.profile[np.arange(len(chain)), chain.sequence].mean() for chain in data.splits["train"]])
    assert own > 0.25  # a profile has its columns in the order of LETTERS: chance would be 0.05


def test_virtual_cb_is_a_bond_length_from_ca_and_a_glycine_has_none():
    backbone = np.array([[[1.458, 0, 0], [0, 0, 0], [-0.547, 1.424, 0]]] * 2, np.float32)  # N, CA, C of ideal geometry
    cb = virtual_cb(backbone, encode_residues("AG"))
    assert np.linalg.norm(cb[0]) == pytest.approx(1.53, abs=0.02)
    assert np.array_equal(cb[1], backbone[1, 1])


def test_setup_twice_reads_once(data):
    before = data.splits
    data.setup()
    assert data.splits is before


@pytest.mark.parametrize("wrong", [{"crop_size": 7}, {"crop_size": 0}, {"sequence_only": 1.5}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=f"data.{next(iter(wrong))}="):
        Data(DataConfig(**wrong)).setup()


def test_a_batch_has_its_shapes_and_its_distances(data):
    batch = data.batch("train", [5, 11, 2], rngs(1, 2, 3))
    max_length = max(len(data.splits["train"][i]) for i in (5, 11, 2))
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "sequence": (3, max_length),
        "profile": (3, max_length, 20),
        "residue_index": (3, 26),
        "seq_mask": (3, 26),
        "distance": (3, 26, 26),
    }
    chain = data.splits["train"][11]
    i, j = batch["residue_index"][1, 4].item(), batch["residue_index"][1, 20].item()
    assert batch["distance"][1, 4, 20].item() == pytest.approx(distances(chain)[i, j], abs=1e-3)


def test_a_batch_is_a_pure_function_of_its_generators(data):
    first, again = (data.batch("train", [5, 11, 2], rngs(1, 2, 3)) for _ in range(2))
    other = data.batch("train", [5, 11, 2], rngs(1, 2, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["residue_index"][:2], other["residue_index"][:2])
    assert not torch.equal(first["residue_index"][2], other["residue_index"][2])


def test_crops_are_two_stretches_and_reach_every_residue():
    seen = np.zeros(41, int)
    for seed in range(300):
        place = two_stretches(41, 14, np.random.default_rng(seed))
        assert len(place) == 14
        assert (np.diff(place) > 0).all()
        assert (np.diff(place) > 1).sum() <= 1
        seen[place] += 1
    assert (seen > 0).all()
    assert two_stretches(11, 14, np.random.default_rng(0)).tolist() == list(range(11))


@pytest.mark.parametrize(("share", "dropped"), [(0.0, 0), (1.0, 3)])
def test_profiles_are_dropped_as_often_as_asked(share, dropped):
    data = Data(DataConfig(crop_size=26, sequence_only=share))
    data.setup()
    batch = data.batch("train", [0, 1, 2], rngs(1, 2, 3))
    assert sum(set(row.unique().tolist()) == {0.0, 1.0} for row in batch["profile"]) == dropped
    if dropped:
        assert torch.equal(batch["profile"].argmax(-1)[0, :40], batch["sequence"][0, :40])


def test_learned_positions_are_enough_for_every_split(data):
    few = Data(data.config)
    few.splits = {"train": [random_chain(23)], "val": [random_chain(31)], "test": [random_chain(29)]}
    assert few.spec()["max_length"] == 31


# model


@pytest.mark.parametrize(
    ("bins", "K", "whole"), [(Bins.coarse, 18, 5), (Bins.trrosetta, 37, 12), (Bins.alphafold, 64, 19.2)]
)
def test_predictions_are_symmetric_distributions(data, bins, K, whole):
    """Bins below 8 Å, in units of them: 4, 4-5 … 7-8; 2.5, 2.5-3 … 7.5-8; 2.3125 … 7.9375, and a fifth of the next."""
    adapter = make_adapter(data, bins=bins)
    said = adapter(collate([random_chain(29), random_chain(23, 1)]))
    logits = said.distance
    assert logits.shape == (2, 29, 29, K)
    assert torch.allclose(logits, logits.transpose(1, 2), atol=1e-5)
    assert said.ss8 is None  # no training chain had them
    contact = adapter.contacts(said)
    assert ((contact >= 0) & (contact <= 1)).all()
    expected = logits.softmax(-1)[..., : int(whole)].sum(-1) + logits.softmax(-1)[..., int(whole)] * (whole % 1)
    assert torch.allclose(contact, expected)


def test_contacts_are_float32_where_training_is_not(data):
    """Under autocast, as trainer.precision=bf16-mixed has it, products would be bfloat16."""
    adapter, batch = make_adapter(data), collate([random_chain(29), random_chain(23, 1)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        said = adapter(batch)
        contact, measured = adapter.contacts(said), adapter.metrics(said, batch)
    assert contact.dtype == torch.float32
    expected = said.distance.double().softmax(-1) @ adapter.contact_fraction.double()
    assert torch.allclose(contact.double(), expected, rtol=0, atol=1e-6)  # sums of 64 numbers that are 1 in all
    assert all(values.isfinite().all() for values in measured.values())


def test_padding_never_moves_a_valid_prediction(data):
    adapter = make_adapter(data)
    short, long = random_chain(17), random_chain(29, 1)
    alone = adapter(collate([short])).distance
    batch = collate([short, long])
    together = adapter(batch).distance
    assert torch.allclose(together[:1, :17, :17], alone, atol=1e-5)
    batch["residue_index"][0, 17:] = 3  # other residues where there are none
    assert torch.equal(adapter(batch).distance[0, :17, :17], together[0, :17, :17])
    batch["seq_mask"][0, 17:] = True  # and they do move it, once they count
    assert not torch.allclose(adapter(batch).distance[0, :17, :17], together[0, :17, :17], atol=1e-5)


def test_padding_never_moves_the_loss(data):
    adapter = make_adapter(data)
    short, long = random_chain(17), random_chain(29, 1)
    alone, batch = collate([short]), collate([long, short])
    with torch.inference_mode():
        losses = [adapter.metrics(adapter(b), b)["loss"] for b in (alone, batch)]
    assert losses[0][0].item() == pytest.approx(losses[1][1].item(), abs=1e-5)
    before = mean_loss(adapter.loss(adapter(batch), batch))
    batch["distance"][1, 17:] = 5.0
    assert mean_loss(adapter.loss(adapter(batch), batch)).item() == before.item()


def test_every_residue_reaches_every_pair(data):
    adapter = make_adapter(data)
    batch = collate([random_chain(29)])
    before = adapter(batch).distance
    batch["profile"][0, 28] = torch.eye(20)[7]
    assert (adapter(batch).distance - before).abs().amax(-1)[0].min() > 0  # pair (0, 1) too, by attention and triangles


def test_every_weight_gets_a_gradient(data):
    adapter = make_adapter(data).train()
    batch = data.batch("train", [0, 1, 2], rngs(1, 2, 3))
    mean_loss(adapter.loss(adapter(batch), batch)).backward()
    idle = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_a_crop_is_predicted_from_its_own_surroundings(data):
    """Tokens are made in the whole chain and chosen afterwards: a residue of a crop knows neighbours outside of it."""
    adapter = make_adapter(data)
    batch = collate([random_chain(29)], [np.array([4, 5, 6, 19, 20])])
    before, profile = adapter(batch).distance, batch["profile"][0].clone()
    batch["profile"][0, 8] = torch.eye(20)[7]  # two residues outside
    near = adapter(batch).distance
    batch["profile"][0, 8], batch["profile"][0, 12] = (
        profile[8],
        torch.eye(20)[7],
    )  # too far from all
    far = adapter(batch).distance
    assert (far - before).abs().max() < 1e-5 < 1e-3 < (near - before).abs().max()


def test_triangle_multiplication_is_that_of_its_definition():
    """Loops over i, j, k in double precision: outgoing edges for one half of the features, incoming for the other."""
    torch.manual_seed(0)
    L, P = 5, 6
    layer = TriangleMultiplication(P).double()
    z = torch.randn(1, L, L, P, dtype=torch.double)
    both = (torch.rand(1, L, L, 1) > 0.3).double()
    inner = layer.norm(z)
    a, b, c, d = (layer.project(inner) * layer.gate(inner).sigmoid() * both)[0].chunk(4, -1)  # (L, L, P / 2)
    sums = torch.zeros(L, L, P, dtype=torch.double)
    for i in range(L):
        for j in range(L):
            for k in range(L):
                sums[i, j] += torch.cat([a[i, k] * b[j, k], c[k, i] * d[k, j]])
    expected = layer.gate_out(inner).sigmoid() * layer.out(layer.norm_out(sums))
    assert torch.allclose(layer(z, both), expected, atol=1e-12)


@pytest.mark.parametrize("ending", [False, True])
def test_triangle_attention_is_that_of_its_definition(ending):
    """Loops over i, j, k in double precision; two chains, the second of them shorter."""
    torch.manual_seed(0)
    L, P = 5, 6
    layer = TriangleAttention(P, ending).double()
    H, D = layer.num_heads, P // layer.num_heads
    assert H == 2
    z = torch.randn(2, L, L, P, dtype=torch.double)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = layer(z, (real[:, :, None] & real[:, None])[..., None].double())
    for b in range(2):
        n = int(real[b].sum())
        inner = layer.norm(z[b].transpose(0, 1) if ending else z[b])
        q, k, v = layer.qkv(inner).unflatten(-1, (3, H, D)).unbind(2)  # (L, L, H, D) each
        bias, gate = layer.bias(inner), layer.gate(inner).sigmoid()
        for i in range(n):
            for j in range(n):
                gathered = []
                for h in range(H):
                    score = torch.stack([q[i, j, h] @ k[i, m, h] / D**0.5 + bias[j, m, h] for m in range(n)])
                    gathered.append(sum(p * v[i, m, h] for m, p in enumerate(score.softmax(0))))
                expected = layer.out(gate[i, j] * torch.cat(gathered))
                assert torch.allclose(out[(b, j, i) if ending else (b, i, j)], expected, atol=1e-12)


def test_attention_around_the_ends_of_a_pair_mirrors_that_around_its_start():
    torch.manual_seed(0)
    start, end = TriangleAttention(8, False), TriangleAttention(8, True)
    end.load_state_dict(start.state_dict())
    z, both = torch.randn(1, 7, 7, 8), torch.ones(1, 7, 7, 1)
    assert torch.allclose(end(z.transpose(1, 2), both), start(z, both).transpose(1, 2), atol=1e-6)


def test_turning_pairs_around_swaps_the_triangles_of_both_kinds():
    """z -> zᵀ takes Σ_k a_ik b_jk to Σ_k b_ki a_kj: half of the features to the other, with their weights."""
    torch.manual_seed(0)
    P = 6
    layer, turned = TriangleMultiplication(P), TriangleMultiplication(P)
    swap = torch.arange(2 * P).view(4, -1).flip(0).flatten()  # a, b, c, d to d, c, b, a
    half = torch.cat([torch.arange(P // 2, P), torch.arange(P // 2)])
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for name in ("project", "gate"):
        for kind in ("weight", "bias"):
            state[f"{name}.{kind}"] = state[f"{name}.{kind}"][swap]
    state["out.weight"] = state["out.weight"][:, half]
    turned.load_state_dict(state)
    z, both = torch.randn(1, 7, 7, P), torch.ones(1, 7, 7, 1)
    assert torch.allclose(turned(z.transpose(1, 2), both), layer(z, both).transpose(1, 2), atol=1e-6)


def test_an_outer_product_is_that_of_its_definition():
    torch.manual_seed(0)
    layer = FullOuterProduct(7, 5).double()
    x = torch.randn(2, 3, 7, dtype=torch.double)
    a, b = layer.split(x).chunk(2, -1)
    assert a.shape[-1] == 3  # the least whose square is at least 5
    for n in range(2):
        for i in range(3):
            for j in range(3):
                expected = layer.out(torch.outer(a[n, i], b[n, j]).flatten())
                assert torch.allclose(layer(x)[n, i, j], expected, atol=1e-12)


def test_a_low_rank_bias_is_that_of_its_definition():
    torch.manual_seed(0)
    layer = RankBias(6, 3, 2).double()
    z = torch.randn(1, 5, 5, 6, dtype=torch.double)
    real = torch.tensor([[1.0, 1, 1, 1, 0]]).double()
    bias = layer.make_bias(z, (real[:, :, None] * real[:, None])[..., None]).dense()  # (B, H, L, L)
    inner = layer.norm(z[0])
    for i in range(4):
        for j in range(4):
            u, w = layer.rows(inner[i, :4].mean(0)), layer.columns(inner[:4, j].mean(0))
            expected = (u.view(3, 2) * w.view(3, 2)).sum(1)
            assert torch.allclose(bias[0, :, i, j], expected, atol=1e-12)


VARIANTS = [
    {"triangle_multiplication": False},
    {"triangle_attention_interval": 1},
    {"triangle_attention_interval": 2},
    {"outer_product": OuterProductKind.full},
    {"bias_rank": 2},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_of_the_model_keep_its_promises(data, variant):
    """Symmetric, blind to padding, and every weight learns; the default model is another one."""
    adapter = make_adapter(data, **variant)
    short, long = random_chain(17), random_chain(29, 1)
    alone, together = adapter(collate([short])).distance, adapter(collate([short, long])).distance
    assert torch.allclose(together[:1, :17, :17], alone, atol=1e-5)
    assert torch.allclose(alone, alone.transpose(1, 2), atol=1e-5)
    batch = data.batch("train", [0, 1, 2], rngs(1, 2, 3))
    mean_loss(adapter.loss(adapter(batch), batch)).backward()
    idle = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    names = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    assert names != {name: tuple(p.shape) for name, p in make_adapter(data).named_parameters()}


def test_triangle_attention_stands_in_every_so_many_th_block(data):
    adapter = make_adapter(data, depth=5, triangle_attention_interval=2)
    assert ["triangle_attention.0.qkv.weight" in block.state_dict() for block in adapter.blocks] == [
        False,
        True,
    ] * 2 + [False]


@pytest.mark.parametrize("variant", [{}, *VARIANTS], ids=str)
def test_some_rows_at_a_time_are_all_rows(data, variant, monkeypatch):
    adapter, batch = make_adapter(data, **variant), collate([random_chain(29), random_chain(23, 1)])
    with torch.inference_mode():
        whole = adapter(batch).distance
        monkeypatch.setattr(domains.protein.pair, "CHUNK", 2 * 29 * 10 * 3)  # three rows
        assert torch.allclose(adapter(batch).distance, whole, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pair_dim": 0},
        {"pair_dim": 7},
        {"max_relative_position": 0},
        {"conv_radius": -1},
        {"triangle_attention_interval": -1},
        {"bias_rank": 0},
    ],
)
def test_models_that_cannot_be_are_refused(data, wrong):
    with pytest.raises(ValueError, match=f"model.{next(iter(wrong))}"):
        make_adapter(data, **wrong)


def test_the_neighbourhood_of_a_token_is_not_what_its_mixer_sees(data):
    adapter: Any = make_adapter(data, mixer=Mixer.window, window=5)
    assert adapter.embed.kernel_size == (2 * 2 + 1,)
    assert [block.mixer.window_mask.left for block in adapter.transformer.blocks] == [5, 5]


# metrics


def test_precision_counts_long_range_pairs_alone():
    score, distance = np.zeros((53, 53)), np.full((53, 53), 20.0)
    score[0, 23] = 9.0  # one residue too near to count
    for rank, j in enumerate(range(30, 40)):  # L/5 = 10 pairs, 7 of them contacts
        score[3, j] = 5.0 - 0.1 * rank
        distance[3, j] = 7.9 if rank < 7 else 8.0
    assert precision(score, distance, 5) == 0.7
    assert precision(-score, distance, 5) == 0.0
    i, j = ranked(score)
    assert (i[0], j[0]) == (3, 30)
    assert (j - i).min() == 24


def test_ranges_of_separation_do_not_overlap():
    score = np.random.default_rng(0).random((61, 61))
    apart = {span: {int(d) for d in np.subtract(*ranked(score, *limits)[::-1])} for span, limits in RANGES.items()}
    assert apart == {"short": {*range(6, 12)}, "medium": {*range(12, 24)}, "long": {*range(24, 61)}}


def test_residues_that_were_not_seen_are_no_candidates():
    """Nor do they count for L: of 53 residues 43 are seen, and 8 of the best 8 pairs of these are contacts."""
    score, distance = np.zeros((53, 53)), np.full((53, 53), 20.0)
    distance[:10], distance[:, :10] = np.nan, np.nan
    score[0, 30:53], score[12, 40:48] = 9.0, 5.0
    distance[12, 40:48] = distance[40:48, 12] = 7.0
    np.fill_diagonal(distance[10:, 10:], 0.0)
    assert precision(score, distance, 5) == 1.0
    assert precision(score, distance, 4) == 0.8
    assert precision(score, np.full((53, 53), np.nan), 5) == 0.0
    axis = Figure().subplots()
    draw(axis, Panel("", score, distance))
    marked = np.asarray(axis.collections[0].get_offsets()) - 1  # j, i
    assert marked.tolist() == [[j, 12] for j in range(40, 48)]
    assert np.ptp([*np.asarray(axis.collections[0].get_facecolor()), to_rgba(HIT)], axis=0).max() == 0  # one colour
    below = np.ma.filled(np.ma.asarray(axis.images[1].get_array()), -1.0)
    assert below[[52, 45, 52, 3], [3, 12, 12, 52]].tolist() == [float(UNSEEN), 0.0, -1.0, -1.0]


def test_lddt_by_hand():
    true = np.array([[0, 5.0, 20], [5, 0, 14], [20, 14, 0]])
    assert lddt(true, true) == 1.0
    predict_chain = true.copy()
    predict_chain[0, 1] += 0.7  # within 1, 2 and 4 Å
    predict_chain[1, 2] -= 3.0  # within 4 Å
    predict_chain[0, 2] += 90.0  # too far apart to count
    assert lddt(predict_chain, true) == (0 + 1 / 2 + 1 / 2 + 1) / 4
    assert lddt(predict_chain, np.where(true == 14, np.nan, true)) == 3 / 4


def test_the_median_of_a_distogram_by_hand():
    edges = np.array([4.0, 5.0, 7.0])
    for probability, expected in (
        ([0, 1, 0, 0], 4.5),
        ([0.25, 0.25, 0.5, 0], 5.0),
        ([0, 0.1, 0.8, 0.1], 6.0),
        ([1, 0, 0, 0], 3.5),
        ([0.1, 0, 0, 0.9], 7.0),
    ):
        assert median_distance(np.array([[probability]]), edges)[0, 0] == pytest.approx(expected)


def test_calibration_by_hand():
    """Pairs 6 apart at P = 0.9, of which half touch, and 7 apart at 0.05, of which none do; the rest does not count."""
    probability, distance = np.full((8, 8), 0.5), np.full((8, 8), 5.0)
    probability[0, 6] = probability[1, 7] = 0.9
    distance[1, 7], probability[0, 7], distance[0, 7] = 9.0, 0.05, 9.0
    brier, bins = calibration([probability], [distance])
    assert brier == pytest.approx((0.01 + 0.81 + 0.0025) / 3)
    assert bins.error == pytest.approx((2 * 0.4 + 0.05) / 3)
    assert bins.counts.tolist() == [1, *[0] * 7, 2, 0]  # 0.9 ends a bin
    assert np.allclose((bins.confidence[[0, 8]], bins.accuracy[[0, 8]]), [[0.05, 0.9], [0, 0.5]])
    distance[0, 7] = np.nan
    assert calibration([probability], [distance])[0] == pytest.approx(0.41)


def test_the_scale_of_log_odds_is_the_likeliest(data):
    """Any other would make the contacts of the training chains less likely."""
    chains = data.splits["train"][:60]
    pairs = ProfilePairs(chains, SeparationPrior(chains))

    def surprise(scale: float) -> float:
        total = 0.0
        for chain in chains:
            i, j = np.triu_indices(len(chain), 24)
            score = (scale * (pairs(chain) - pairs.prior(chain)) + pairs.prior(chain))[i, j]
            total += np.logaddexp(0, np.where(distances(chain)[i, j] < 8, -score, score)).sum()
        return total

    assert surprise(1.0) < min(surprise(0.9), surprise(1.1))


def test_the_separation_prior_falls_with_separation(data):
    prior = SeparationPrior(data.splits["train"])(data.splits["test"][0])
    assert prior.shape == (len(data.splits["test"][0]),) * 2
    assert prior[0, 7] > prior[0, 30]
    assert np.array_equal(prior, prior.T)


def test_profile_pairs_find_what_they_were_shown():
    """In a made-up family, residues of kinds 2 and 9 touch at long range, and nothing else does."""
    sequence = np.full(61, 5)
    sequence[[4, 20]], sequence[[40, 57]] = 2, 9
    cb = np.stack([np.arange(61) * 10.0, np.zeros(61), np.zeros(61)], 1)
    cb[[40, 57]] = cb[[4, 20]] + 1.0
    chain = Chain("made", sequence, one_hot(sequence), cb)
    score = ProfilePairs([chain], SeparationPrior([chain]))(chain)
    i, j = ranked(score)
    assert {(4, 40), (20, 57)} <= set(list(zip(i.tolist(), j.tolist(), strict=True))[:4])


# evaluate


def test_evaluate_scores_beside_baselines_and_draws(trained, data, tmp_path):
    few = Data(data.config)
    few.splits = {split: chains[:size] for (split, chains), size in zip(data.splits.items(), (101, 7, 5), strict=True)}
    evaluation = evaluate(trained, few, tmp_path / "new", "val")
    assert [score.baseline for score in evaluation.scores] == ["separation prior", "profile-pair log-odds"]
    with open(tmp_path / "new" / "precision.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["chain"] for row in rows] == [chain.name for chain in few.splits["val"]]
    for method, value in (
        ("model", evaluation.scores[0].value),
        ("separation prior", evaluation.scores[0].baseline_value),
        ("profile-pair log-odds", evaluation.scores[1].baseline_value),
    ):
        assert np.mean([float(row[f"{method} P@L/5"]) for row in rows]) == pytest.approx(value, abs=1e-3)
    with torch.inference_mode():
        batch = few.batch("val", range(7))
        expected = trained.metrics(trained(batch), batch)
    assert evaluation.scores[0].value == pytest.approx(expected["long_range_precision"].mean().item())
    assert evaluation.metrics["loss"] == pytest.approx(expected["loss"].mean().item(), abs=1e-4)
    assert evaluation.metrics["loss, sequence alone"] != evaluation.metrics["loss"]
    assert evaluation.metrics["chains"] == 7
    for path in evaluation.figures:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000


def test_chains_without_a_long_range_are_counted(trained, data, tmp_path):
    few = Data(data.config)
    few.splits = {"train": data.splits["train"][:37], "val": [random_chain(23), random_chain(29, 1)], "test": []}
    with pytest.warns(
        DataWarning, match=r"1 of 2 chains \(first: .*\) have no two residues at long range that were seen"
    ):
        evaluate(trained, few, tmp_path / "new", "val")


def test_evaluate_refuses_an_unknown_split(trained, data, tmp_path):
    with pytest.raises(ValueError, match="possible: train, val, test"):
        evaluate(trained, data, tmp_path, "dev")


# predict


def fasta(folder: Path, text: str) -> str:
    path = folder / "in.fasta"
    path.write_text(text)
    return str(path)


def test_predict_writes_a_picture_a_table_and_distances(trained, tmp_path):
    first, second = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGT", "acdefghiklxbz*"
    source = fasta(tmp_path, f">sp|P1/2|A first one\n{first[:20]}\n{first[20:]}\n>sp|P1/2|A\n{second}\n")
    with pytest.warns(DataWarning) as told:
        paths = predict(trained, source, tmp_path / "out")
    assert [str(w.message).split(": ", 1)[1] for w in told] == [
        "stops (*) at the end of sequences, left out: 1 (sp|P1/2|A)",
        "ambiguous residues, read as X: 2 (B, Z)",
        "chains of a name that another has, numbered: 1 (sp_P1_2_A_2)",
    ]
    suffixes = (".png", ".csv", ".residues.csv", ".rr", ".npz")
    assert [path.name for path in paths] == [f"{n}{s}" for n in ("sp_P1_2_A", "sp_P1_2_A_2") for s in suffixes]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    with np.load(paths[4], allow_pickle=False) as arrays:
        assert str(arrays["sequence"]) == first
        assert arrays["distance"].shape == (44, 44, len(arrays["bin_edges"]) + 1)
        assert np.allclose(arrays["distance"].sum(-1, dtype=float), 1, atol=2e-2)
        whole = np.searchsorted(arrays["bin_edges"], 8.0)  # bins that end below 8 Å
        low, high = arrays["bin_edges"][whole - 1 : whole + 1]
        below = arrays["distance"].astype(float) @ np.r_[np.ones(whole), (8 - low) / (high - low), np.zeros(63 - whole)]
        assert np.allclose(below, arrays["contact"], atol=1e-2)
        contact = arrays["contact"]
    with open(paths[1], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 44
    assert all(int(row["j"]) - int(row["i"]) >= 6 for row in rows)
    for row in rows:
        assert (first[int(row["i"]) - 1], first[int(row["j"]) - 1]) == (row["residue_i"], row["residue_j"])
        assert float(row["probability"]) == pytest.approx(contact[int(row["i"]) - 1, int(row["j"]) - 1], abs=1e-4)
    assert [float(row["probability"]) for row in rows] == sorted(
        (float(row["probability"]) for row in rows), reverse=True
    )
    with np.load(paths[9], allow_pickle=False) as arrays:
        assert str(arrays["sequence"]) == "ACDEFGHIKLXXX"


def test_a_record_is_predicted_the_same_in_any_company(trained, tmp_path):
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIE"
    contacts = []
    for n, text in enumerate((f">a\n{sequence}\n", f">b\nWWWWWWWWWWWWWWWWW\n>a\n{sequence}\n")):
        predict(trained, fasta(tmp_path, text), tmp_path / str(n))
        with np.load(tmp_path / str(n) / "a.npz", allow_pickle=False) as arrays:
            contacts.append(arrays["contact"])
    assert np.allclose(*contacts, rtol=0, atol=1e-6)  # a library may sum in another order where memory lies otherwise


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("MKTAYIAKQR\n", "cannot be read as FASTA: it holds no line >name"),
        (">a\nMKT\n>empty\n\n", "'empty' is empty"),
        (">a\nMKT\n>bad\nMK-T1\n", "'bad': '-' at position 3 is no amino acid; possible: " + AMINO_ACIDS),
        (">long\n" + "A" * 100_000 + "\n", "long: 100000 residues; possible are 1 to 2048"),
        (">nul\nMK\x00T\n", r"'nul': '\\x00' at position 3"),
    ],
)
def test_bad_fasta_is_refused_in_one_sentence_and_nothing_is_written(trained, tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        predict(trained, fasta(tmp_path, text), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_text_file_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        predict(trained, str(tmp_path / "missing.fasta"), tmp_path / "out")
    with pytest.raises(ValueError, match="is a folder; give one of its files"):
        predict(trained, str(tmp_path), tmp_path / "out")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80PNG")
    with pytest.raises(ValueError, match="does not say what it is; possible: FASTA"):
        predict(trained, str(tmp_path / "binary"), tmp_path / "out")


@pytest.mark.parametrize(("length", "told"), [(23, False), (29, True)])
def test_a_precision_of_no_pairs_is_not_told(trained, tmp_path, monkeypatch, length, told):
    """A chain of up to 24 residues has no long-range pairs."""
    chain, panels = random_chain(length), []
    monkeypatch.setattr("domains.protein.predict.contact_maps", lambda path, shown: panels.extend(shown))
    write(predict_chain(trained, chain), chain, tmp_path)
    assert [("P@L/5" in panel.title) for panel in panels] == [told]
    assert any("precision" in what for what, _ in explanation(trained, chain).answers) == told


@pytest.mark.parametrize("position", [PositionConfig(PositionKind.learned), PositionConfig(PositionKind.rotary, True)])
def test_learned_positions_end_where_training_did(data, tmp_path, position):
    config = ModelConfig(dim=12, depth=1, num_heads=3, pair_dim=6)
    adapter = Adapter(config, position, data.spec() | {"max_length": 47}).eval()
    assert len(explanation(adapter, random_chain(53)).elements) == 47
    adapter = Adapter(config, position, data.spec()).eval()
    with pytest.raises(ValueError, match="151 residues; possible are 1 to 150"):
        predict(adapter, fasta(tmp_path, ">a\n" + "A" * 151 + "\n"), tmp_path / "out")


def test_names_are_fit_for_files_and_differ(tmp_path):
    text = "".join(f">{name}\nMKT\n" for name in ("../../etc/passwd", "|||", "a b", "A", "x" * 300))
    with pytest.warns(DataWarning, match=r"chains of a name that another has, numbered: 1 \(A_2\)"):
        names = [chain.name for chain in read_chains(fasta(tmp_path, text))]
    assert names == ["etc_passwd", "chain", "a", "A_2", "x" * 80]
