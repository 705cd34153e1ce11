"""The masked protein language model as a domain: sequences of a FASTA file, like lengths, perplexity."""

import csv
import json
import lzma

import numpy as np
import pytest
import torch

import domains.protein.clusters
from core.config import PositionConfig, PositionKind
from domains.adapter import mean_metrics
from domains.data_warnings import DataWarning
from domains.protein.language import ESM_RESIDUES, IGNORE_INDEX, MASK, PAD, encode
from domains.protein.masked.adapter import Adapter
from domains.protein.masked.config import DataConfig, ModelConfig
from domains.protein.masked.data import Data, LengthGroupedSteps
from domains.protein.masked.evaluate import evaluate
from domains.protein.masked.predict import predict, predict_residues
from domains.sampling import StepDataset


def sequences(count: int) -> list[str]:
    """Of 5 to 90 residues, half of them leucine."""
    rng = np.random.default_rng(0)
    chances = np.r_[0.5, np.full(19, 0.5 / 19)]
    return ["".join(rng.choice([*ESM_RESIDUES[:20]], rng.integers(5, 91), p=chances)) for _ in range(count)]


@pytest.fixture(scope="module")
def fasta(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("fasta") / "some.fasta.xz"
    path.write_bytes(lzma.compress("".join(f">{n}\n{s}\n" for n, s in enumerate(sequences(400))).encode()))
    return str(path)


@pytest.fixture
def data(fasta, monkeypatch) -> Data:
    monkeypatch.setattr(domains.protein.clusters, "which", lambda program: None)
    data = Data(DataConfig(path=fasta, max_length=61, batch_size=7, val_share=0.1, test_share=0.1))
    with pytest.warns(DataWarning, match="mmseqs is not|123 of 400 sequences .* are longer than data.max_length=61"):
        data.setup()
    return data


def make_adapter() -> Adapter:
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=12, depth=1, num_heads=3, zero_init=True), PositionConfig(PositionKind.rotary), {})


def test_every_sequence_is_in_one_split(data):
    parts = [set(data.splits[split]) for split in ("train", "val", "test")]
    assert set().union(*parts) == set(sequences(400))
    assert sum(map(len, parts)) == len(set(sequences(400)))
    assert 15 < len(parts[1]) < 70
    before = data.splits
    data.setup()
    assert data.splits is before


def test_a_batch_hides_residues_and_asks_for_them(data):
    rngs = lambda: (np.random.default_rng(n) for n in range(3))  # noqa: E731
    batch, again = data.batch("train", [3, 5, 8], rngs()), data.batch("train", [3, 5, 8], rngs())
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert batch["tokens"].shape[1] <= 63
    selected = batch["targets"] != IGNORE_INDEX
    assert (batch["targets"][batch["tokens"] == PAD] == IGNORE_INDEX).all()
    whole = torch.where(selected, batch["targets"], batch["tokens"])
    for row, index in zip(whole, (3, 5, 8), strict=True):
        sequence = data.splits["train"][index]
        letters = row[row != PAD]
        assert any(torch.equal(letters, encode([sequence[n : n + 61]])[0]) for n in range(max(1, len(sequence) - 60)))
    assert (batch["tokens"][selected] == MASK).any()


def test_what_is_hidden_for_validation_depends_on_the_sequence_alone(data):
    together, alone = data.batch("val", [0, 1, 2]), data.batch("val", [1])
    length = alone["tokens"].shape[1]
    assert torch.equal(together["tokens"][1, :length], alone["tokens"][0])
    assert torch.equal(together["targets"][1, :length], alone["targets"][0])
    adapter = make_adapter().eval()
    whole = mean_metrics(adapter, [data.batch("val", range(10))])
    parts = mean_metrics(adapter, [data.batch("val", [n]) for n in range(10)])
    assert whole == pytest.approx(parts, abs=1e-5)


def test_a_step_has_sequences_of_like_lengths():
    """All of them, once a pass, whatever the batch size; and each process gets its share of the same step."""
    lengths = np.random.default_rng(1).integers(30, 400, 997)

    def order(world: int = 1, rank: int = 0, seed: int = 0) -> LengthGroupedSteps:
        return LengthGroupedSteps(
            StepDataset(997, 8, seed, lambda indices, _: {"i": torch.tensor(indices)}, rank, world), lengths
        )

    steps = [order()[step]["i"].numpy() for step in range(1000)]
    for epoch in range(3):
        seen = np.concatenate(steps)[997 * epoch : 997 * (epoch + 1)]
        assert sorted(seen) == [*range(997)]
    spread = np.mean([np.ptp(lengths[step]) for step in steps])
    assert spread < 30 < 200 < np.mean([np.ptp(lengths[np.arange(n, n + 8)]) for n in range(0, 980, 8)])
    means = np.array([lengths[step].mean() for step in steps[:124]])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3  # no run of short ones, then of long ones
    again = order()
    assert all(
        np.array_equal(again[step]["i"], steps[step]) for step in (999, 3, 500, 999, 850, 3)
    )  # in any order of asking
    assert not np.array_equal(order(seed=1)[3]["i"], steps[3])
    shares = [order(2, rank)[3]["i"].numpy() for rank in range(2)]
    assert np.array_equal(np.stack(shares, 1).ravel(), steps[3])


def test_evaluate_is_beside_the_unigram(data, tmp_path):
    adapter = make_adapter()
    found = evaluate(adapter, data, tmp_path, "val")
    batch = data.batch("val", range(data.size("val")))
    targets = batch["targets"][batch["targets"] != IGNORE_INDEX]
    train = encode(data.splits["train"])
    rate = torch.bincount(train[train > 3], minlength=33)[targets].double() + 1
    total = torch.bincount(train[train > 3]).sum() + 33
    assert found.metrics["unigram perplexity"] == pytest.approx((total / rate).log().mean().exp().item())
    assert found.metrics["residues asked for"] == len(targets)
    assert found.metrics["commonest residue"] == pytest.approx((targets == encode(["L"])[0, 1]).float().mean().item())
    loss = mean_metrics(adapter, [batch])["loss"]
    assert found.metrics["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    assert [score.baseline for score in found.scores] == ["unigram", "commonest residue"]


def test_predict_hides_one_residue_at_a_time(tmp_path, monkeypatch):
    adapter, (sequence, other) = make_adapter().eval(), ("MKTAYIAKQRX", "GIVEQ")
    torch.nn.init.normal_(adapter.get_parameter("transformer.blocks.0.mixer.out.weight"))
    path = tmp_path / "two.fasta"
    path.write_text(f">a\n{sequence}\n>b\n{other}\n")
    paths = predict(adapter, str(path), tmp_path / "out")
    assert [p.name for p in paths] == ["a.csv", "b.csv"]
    with open(paths[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert "".join(row["residue"] for row in rows) == sequence
    hidden = encode([sequence[:3] + "<mask>" + sequence[4:]])
    with torch.inference_mode():
        expected = adapter({"tokens": hidden})[0, 4, 4:24].softmax(-1)
    for n, letter in enumerate(ESM_RESIDUES[:20]):
        assert float(rows[3][letter]) == pytest.approx(expected[n].item(), abs=1e-4)
    assert rows[3]["probability"] == rows[3]["A"]
    assert rows[10]["probability"] == ""  # X is no amino acid
    whole = predict_residues(adapter, sequence)
    monkeypatch.setattr("domains.protein.masked.predict.ROWS", 30)  # two at a time
    assert np.allclose(predict_residues(adapter, sequence), whole, atol=1e-6)
    path.write_text(">a\nMK\n>long\n" + "A" * 1023 + "\n")
    with pytest.raises(ValueError, match="long: 1023 residues; possible are 1 to 1022"):
        predict(adapter, str(path), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": None}, "data.path=None is not there; give a FASTA file"),
        ({"max_length": 0}, "data.max_length=0 must be 1 to 1022 residues"),
        ({"max_length": 1023}, "data.max_length=1023 must be 1 to 1022 residues"),
        ({"val_share": 0.9, "test_share": 0.1}, "must leave chains to train on"),
        ({"val_share": 0.0}, "no chain is left for val; .*data.val_share"),
    ],
)
@pytest.mark.filterwarnings("ignore:mmseqs")
def test_settings_that_cannot_be_are_refused(fasta, settings, message):
    with pytest.raises(ValueError, match=message):
        Data(DataConfig(**({"path": fasta} | settings))).setup()


def test_the_commands_run(forked, fasta, tmp_path):
    """attend train, evaluate and predict, by the names that a user gives."""
    small = [
        "model.dim=12",
        "model.depth=1",
        "model.num_heads=3",
        "trainer=cpu",
        "trainer.max_steps=4",
        "data.batch_size=5",
    ]
    shares = ["data.val_share=0.1", "data.test_share=0.1"]
    done = forked("train", "domain=protein_language", "data=fasta", f"data.path={fasta}", *small, *shares, "run=lm")
    assert done.returncode == 0, done.stderr
    done = forked("evaluate", "run=lm")
    assert done.returncode == 0, done.stderr
    assert "perplexity" in done.stdout
    metrics = json.loads((tmp_path / "lm" / "evaluate" / "summary.json").read_text())["metrics"]
    assert metrics["perplexity"] < 60  # of 33 kinds of token, before it has learned anything
    (tmp_path / "x.fasta").write_text(">a\nMKTAYIAK\n")
    done = forked("predict", "run=lm", "input=x.fasta")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lm" / "predict" / "a.csv").is_file()
