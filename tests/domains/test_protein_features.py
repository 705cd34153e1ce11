"""What alignments say: sequence weights, profiles, couplings; and a model that is told so."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.config import PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.protein import features
from domains.protein.adapter import Adapter
from domains.protein.alignment import Alignment, parse_a3m
from domains.protein.alphabet import AMINO_ACIDS, GAP, UNKNOWN
from domains.protein.chain import Chain, one_hot
from domains.protein.config import Bins, Channel, DataConfig, ModelConfig
from domains.protein.data import Data, collate
from domains.protein.evaluate import evaluate
from domains.protein.metrics import ProfilePairs, SeparationPrior, distances, precision
from domains.protein.predict import predict

ALL = [*Channel]


def random_alignment(depth: int, length: int, seed: int = 0) -> Alignment:
    """Sequences that differ from the first in two places of three, a seventh of them gaps."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.integers(0, 20, (1, length)), depth, 0)
    changed = rng.random((depth, length)) < 0.66
    rows[changed] = rng.integers(0, 20, changed.sum())
    rows[rng.random((depth, length)) < 1 / 7] = GAP
    rows[0] = rng.integers(0, 20, length)
    return Alignment(rows.astype(np.int8), rng.integers(0, 3, (depth, length)).astype(np.int16))


def test_sequences_that_are_alike_share_one_vote():
    """Of 10 columns 7, 8 and 9 are the same in two of the first three, gaps among them; 0.62 of 10 are 6.2."""
    family = parse_a3m(">q\nACDEFGHIKL\n>a\nACDEFG---L\n>b\nACDEFG--KL\n>c\nACDEFGWWWW\n")
    assert np.allclose(features.sequence_weights(family), [1 / 3, 1 / 3, 1 / 3, 1])
    assert features.effective_depth(family) == pytest.approx(2)


def test_weights_by_definition(monkeypatch):
    """Of sequences with kin: each is there as it is, and with two columns changed, and with six of them."""
    rows = np.tile(random_alignment(17, 13).rows, (3, 1))
    rows[17:, :2], rows[34:, 2:6] = UNKNOWN, UNKNOWN
    share = (rows[:, None] == rows).mean(-1)
    expected = 1 / (share >= 0.62).sum(1)
    assert len(set(expected)) > 3
    assert np.allclose(features.sequence_weights(Alignment(rows, np.zeros_like(rows))), expected)
    monkeypatch.setattr(features, "CHUNK", 51 * 3)  # three rows at a time
    assert np.allclose(features.sequence_weights(Alignment(rows, np.zeros_like(rows))), expected)


def test_blosum_is_that_of_the_paper():
    """Henikoff & Henikoff 1992: alanine, leucine and tryptophan are 7.4, 9.9 and 1.3 % of all residues."""
    background, conditional = features.blosum()
    for letter, share in (("A", 0.074), ("L", 0.099), ("W", 0.013)):
        assert background[AMINO_ACIDS.index(letter)] == pytest.approx(share, abs=0.01)
    assert np.allclose(conditional.sum(1), 1)
    i, v, d = (AMINO_ACIDS.index(letter) for letter in "IVD")
    assert conditional[i, v] > 5 * conditional[i, d]


def test_a_profile_is_counts_and_what_they_lead_one_to_expect():
    alone = features.profile(parse_a3m(">q\nIW\n"))
    _, conditional = features.blosum()
    assert np.allclose(alone, conditional[[AMINO_ACIDS.index("I"), AMINO_ACIDS.index("W")]], atol=1e-6)
    deep = parse_a3m("".join(f">{n}\n{a * 9}\n" for n, a in enumerate("ACDEFGHIKLMNPQRSTVWYXX"[:11])))
    counts = one_hot(deep.rows[:, 0].astype(int)).mean(0)  # all unlike: 11 effective sequences
    expected = (10 * counts + 10 * counts @ conditional) / 20
    assert np.allclose(features.profile(deep), expected, atol=1e-6)
    hidden = features.profile(parse_a3m(">q\nXI\n>r\n-I\n"))
    assert np.allclose(hidden[0], features.blosum()[0] @ conditional, atol=1e-6)  # nothing is known there


def covariance_of(family: Alignment) -> np.ndarray:
    """(N, 21, N, 21), by loops."""
    weight = features.sequence_weights(family)
    weight = weight / weight.sum()
    x = np.eye(21)[np.minimum(family.rows, UNKNOWN).astype(int)]  # (D, N, 21)
    mean = np.einsum("d,dna->na", weight, x)
    C = np.zeros((x.shape[1], 21, x.shape[1], 21))
    for d in range(len(x)):
        C += weight[d] * np.multiply.outer(x[d] - mean, x[d] - mean)
    return C


def apc_of(norms: np.ndarray) -> np.ndarray:
    norms = norms.copy()
    np.fill_diagonal(norms, 0)
    out = np.zeros_like(norms)
    for i in range(len(norms)):
        for j in range(len(norms)):
            out[i, j] = 0 if i == j else norms[i, j] - norms[i].sum() * norms[:, j].sum() / norms.sum()
    return out


@pytest.mark.parametrize("depth", [3, 7, 29, 211])  # fewer and more sequences than the 11 · 21 columns
def test_couplings_by_definition(depth, monkeypatch):
    family, N = random_alignment(depth, 11), 11
    C = covariance_of(family)
    norms = np.sqrt((C[:, :20, :, :20] ** 2).sum((1, 3)))
    monkeypatch.setattr(features, "CHUNK", 20 * 20 * N * 4)  # four rows at a time
    assert np.allclose(features.covariance(family), apc_of(norms), atol=1e-6)
    ridge = 4.5 / features.effective_depth(family) ** 0.5
    inverse = np.linalg.inv(C.reshape(N * 21, N * 21) + ridge * np.eye(N * 21)).reshape(N, 21, N, 21)
    norms = np.sqrt((inverse[:, :20, :, :20] ** 2).sum((1, 3)))
    assert np.allclose(features.inverse_covariance(family), apc_of(norms), atol=1e-4 * norms.max())


def test_blocks_are_the_covariances():
    family, max_positions = random_alignment(7, 11), np.array([2, 3, 9])
    expected = covariance_of(family)[max_positions][:, :, max_positions].transpose(0, 2, 1, 3).reshape(3, 3, 441)
    assert np.allclose(features.covariance_blocks(family, max_positions), expected, atol=1e-6)


def test_residues_that_change_together_are_found():
    """Places 3 and 17 always change together, by chance to any of four amino acids; all others on their own."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 20, (300, 23))
    rows[:, 3] = rng.integers(0, 4, 300)
    rows[:, 17] = 10 + rows[:, 3]
    family = Alignment(rows.astype(np.int8), np.zeros((300, 23), np.int16))
    for score in (features.covariance(family), features.inverse_covariance(family)):
        assert np.unravel_index(score.argmax(), score.shape) == (3, 17)
        assert np.allclose(score, score.T, atol=1e-5)
        assert np.diag(score).tolist() == [0] * 23


def test_one_sequence_has_no_couplings():
    family = parse_a3m(">q\nACDEFGHIKL\n")
    for score in (features.covariance(family), features.inverse_covariance(family)):
        assert np.array_equal(score, np.zeros((10, 10)))


def test_sites_by_hand():
    family = parse_a3m(">q\nACDE\n>r\nW-wwwWW\n")
    sites = features.site_features(family)
    assert np.allclose(sites[:, 0], [0, 0.5, 0, 0])
    assert np.allclose(sites[:, 1], [0, 0, 0.25, 0])  # 3 insertions are 2/π · arctan 1 = 1/2, in one of two sequences
    assert np.allclose(sites[:, 2], np.log(2) / 8)


# the model


def random_chain(length: int, seed: int = 0, depth: int = 0) -> Chain:
    rng = np.random.default_rng(seed)
    sequence = rng.integers(0, 20, length)
    family = random_alignment(depth, length, seed) if depth else None
    cb = (3.8 * rng.standard_normal((length, 3)).cumsum(0)).astype(np.float32)
    return Chain(f"c{seed}", sequence, rng.dirichlet(np.ones(20), length).astype(np.float32), cb, family)


@pytest.fixture(scope="module")
def data() -> Data:
    data = Data(DataConfig(crop_size=26, channels=ALL, sequence_only=0.5))
    data.splits = {
        "train": [random_chain(43 + n, n, depth=5 * (n % 3)) for n in range(7)],
        "val": [random_chain(47, 11, depth=5), random_chain(53, 12)],
        "test": [random_chain(41, 13, depth=40), random_chain(59, 14, depth=3), random_chain(37, 15)],
    }
    data.setup()
    return data


def make_adapter(data: Data, **changes) -> Adapter:
    torch.manual_seed(0)
    config = ModelConfig(dim=12, depth=2, num_heads=3, mlp_ratio=2, pair_dim=10, conv_radius=2, max_relative_position=7)
    return Adapter(replace(config, **changes), PositionConfig(PositionKind.rotary), data.spec()).eval()


def test_a_batch_brings_what_was_asked_for(data):
    batch = data.batch("test", [0, 2])
    assert batch["site_features"].shape == (2, 41, 3)
    assert batch["pair_features"].shape == (2, 41, 41, 443)
    assert batch["pair_features"][1].abs().max() == 0  # no alignment
    family = data.splits["test"][0].alignment
    assert family is not None
    covariance = features.covariance(family)
    assert np.allclose(batch["pair_features"][0, ..., 0], covariance / covariance.std(), atol=2e-3 * 10)
    rngs = (np.random.default_rng(n) for n in range(3))
    crop_size = data.batch("train", [1, 2, 4], rngs)
    assert crop_size["pair_features"].shape == (3, 26, 26, 443)
    n, place = 1, crop_size["residue_index"][1]
    whole = collate([data.splits["train"][2]], channels=ALL)["pair_features"][0]
    assert not crop_size["pair_features"][n].any() or torch.allclose(
        crop_size["pair_features"][n], whole[place][:, place], atol=1e-6
    )
    shown = [bool(sample.any()) for sample in crop_size["pair_features"]]
    assert shown == [bool(sample.any()) for sample in crop_size["site_features"]]  # without a family, all of it is gone


def test_an_untrained_model_is_the_baseline(data):
    """Its contacts rank as the log-odds do; where a bin ends at 8 Å, P(contact) is the logistic function of them."""
    adapter, fine = make_adapter(data, bins=Bins.coarse), make_adapter(data)
    prior = SeparationPrior(data.splits["train"])
    pairs = ProfilePairs(data.splits["train"], prior)
    for chain in data.splits["test"]:
        with torch.inference_mode():
            batch = collate([chain], channels=ALL)
            contact, finer = (model.contacts(model(batch))[0].numpy() for model in (adapter, fine))
        assert np.allclose(contact, 1 / (1 + np.exp(-pairs(chain))), atol=1e-5)
        for found in (contact, finer):
            assert precision(found, distances(chain), 2) == precision(pairs(chain), distances(chain), 2)


def test_a_longer_chain_than_any_in_training_has_a_baseline(data):
    adapter = make_adapter(data)
    long = random_chain(97, 5)
    with torch.inference_mode():
        assert adapter(collate([long], channels=ALL)).distance.isfinite().all()


def test_every_channel_moves_the_prediction_and_every_weight_learns(data):
    adapter = make_adapter(data).train()
    torch.nn.init.normal_(adapter.distogram.weight, std=0.1)
    batch = data.batch("test", [0, 1, 2])
    before = adapter(batch).distance
    for key, part in (
        ("site_features", slice(0, 1)),
        ("site_features", slice(1, 2)),
        ("pair_features", slice(0, 1)),
        ("pair_features", slice(2, 443)),
    ):
        changed = {name: tensor.clone() for name, tensor in batch.items()}
        changed[key][..., part] += 1.0
        assert not torch.allclose(adapter(changed).distance, before, atol=1e-4), (key, part)
    mean_loss(adapter.loss(adapter(batch), batch)).backward()
    idle = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_residues_that_were_not_seen_are_no_targets(data):
    adapter = make_adapter(data)
    chain = random_chain(41, 3)
    cb = np.array(chain.cb)
    cb[::5] = np.nan
    hidden = replace(chain, cb=cb)
    batch, full = collate([hidden], channels=ALL), collate([chain], channels=ALL)
    assert torch.allclose(adapter(batch).distance, adapter(full).distance)  # they are there for the model
    loss = mean_loss(adapter.loss(adapter(batch), batch))
    assert loss.isfinite()
    with torch.inference_mode():
        assert adapter.metrics(adapter(batch), batch)["loss"].isfinite().all()
    weight, seen = adapter.weight(batch)[0], torch.arange(41) % 5 != 0
    assert torch.equal(weight, adapter.weight(full)[0] * (seen[:, None] & seen))


def test_evaluate_with_alignments(data, tmp_path):
    found = evaluate(make_adapter(data), data, tmp_path).metrics
    for name in ("model", "separation prior", "amino-acid-pair log-odds", "covariance", "inverse covariance"):
        for span in ("short ", "medium ", ""):
            for cut in ("L", "L/2", "L/5"):
                assert 0 <= found[f"{name} {span}P@{cut}"] <= 1
    assert found["model P@L/5"] == found["profile-pair log-odds P@L/5"]  # it was not trained
    depth = [features.effective_depth(c.alignment) if c.alignment else 1 for c in data.splits["test"]]
    assert found["chains, Meff < 30"] == sum(d < 30 for d in depth)
    assert found["chains, Meff 30-120"] == sum(30 <= d < 120 for d in depth)
    assert 0 < found["Brier"] < 0.2
    assert 0 <= found["lDDT"] <= 1


def test_prediction_from_a_shallow_alignment_warns(data, tmp_path):
    """Of fewer than 30 effective sequences, and where the model reads alignments at all."""
    plain = Data(DataConfig(crop_size=26, channels=[Channel.baseline]))
    plain.splits = data.splits
    for depth, deep in ((29, False), (31, True)):
        path = tmp_path / f"{depth}.a3m"
        rows = random_alignment(depth, 13).rows
        path.write_text(
            "".join(f">{n}\n{''.join((AMINO_ACIDS + 'X-')[k] for k in row)}\n" for n, row in enumerate(rows))
        )
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            predict(make_adapter(plain), str(path), tmp_path / "plain")
            assert not told
            predict(make_adapter(data), str(path), tmp_path / "out")
        said = [str(w.message).partition(";")[0] for w in told]
        assert said == ([] if deep else [f"{path}, 29: its alignment has 29.0 effective sequences"])
