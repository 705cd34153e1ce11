"""The text domain: n-gram lookup, windows, causality, generation, and what its commands write."""

import csv
import json
import lzma
from math import log
from typing import Any

import numpy as np
import pytest
import torch

from core.config import PositionConfig, PositionKind
from domains.adapter import mean_loss, mean_metrics
from domains.text.adapter import Adapter
from domains.text.config import DataConfig, ModelConfig
from domains.text.data import IGNORE_INDEX, Data
from domains.text.evaluate import evaluate, read_curves
from domains.text.figures import picture
from domains.text.generate import Sampling, generate
from domains.text.ngram_lookup import NO_MATCH, NgramLookup, ngram_matches
from domains.text.predict import predict
from experiments.config import OptimizerConfig, OptimizerName
from experiments.training.optimizers import make_optimizer

CONTEXT, BATCH = 37, 5
ORDERS = [2, 3, 7]


@pytest.fixture(scope="module")
def data() -> Data:
    data = Data(DataConfig(context=CONTEXT, ngram_lookup=ORDERS, batch_size=BATCH))
    data.setup()
    return data


def tokens_of(data: Data) -> np.ndarray:
    return np.asarray(data.corpus.tokens[:])


def make_adapter(data: Data, kind: PositionKind = PositionKind.rotary) -> Adapter:
    """Small, and with weights that make every part matter."""
    torch.manual_seed(3)
    adapter = Adapter(ModelConfig(dim=24, depth=2, num_heads=3, qk_norm=True), PositionConfig(kind=kind), data.spec())
    torch.nn.init.normal_(adapter.lm_head.weight, std=0.5)
    return adapter.eval()


def spec_of(vocabulary: int) -> dict[str, Any]:
    return {"context": CONTEXT, "vocab_size": vocabulary, "ngram_orders": [], "ngram_text": ""}


@pytest.fixture(scope="module")
def trained(data) -> Adapter:
    adapter = make_adapter(data)
    torch.nn.init.zeros_(adapter.lm_head.weight)
    optimizer = make_optimizer(adapter, OptimizerConfig(name=OptimizerName.muon, lr=1e-2))
    rng = np.random.default_rng(0)
    for _ in range(60):
        batch = data.batch("train", rng.integers(0, data.size("train"), 11).tolist())
        optimizer.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        optimizer.step()
    return adapter.eval()


# N-gram lookup


def test_ngram_matches_by_hand():
    text = b"abcabdabc"
    found = ngram_matches(np.frombuffer(text, np.uint8), [1, 2, 3])
    what = [[chr(v) if v != NO_MATCH else "-" for v in row] for row in found]
    #                a    b    c    a    b    d    a    b    c
    assert [r[0] for r in what] == ["-", "-", "-", "b", "c", "-", "b", "d", "a"]
    assert [r[1] for r in what] == ["-", "-", "-", "-", "c", "-", "-", "d", "a"]
    assert [r[2] for r in what] == ["-", "-", "-", "-", "-", "-", "-", "-", "a"]


def test_the_lookup_byte_by_byte_is_that_of_the_whole_text():
    text = bytes(np.random.default_rng(1).integers(0, 3, 997).astype(np.uint8))
    whole = ngram_matches(np.frombuffer(text, np.uint8), [1, 2, 5, 11])
    lookup = NgramLookup(text[:101], [1, 2, 5, 11])
    assert [lookup.append(byte) for byte in text[101:]] == whole[101:].tolist()


def test_keys_of_real_text_do_not_collide(data):
    text, last = tokens_of(data).tobytes(), {}
    for i in range(len(text) - 1):
        gram = text[i - 6 : i + 1] if i >= 6 else None
        if i % 11 == 0:
            want = text[last[gram] + 1] if gram in last else NO_MATCH
            assert data.ngram_matches[i, 2] == want
        last[gram] = i if gram else None


@pytest.mark.parametrize("orders", [[0, 3], [5, 3], [3, 3]])
def test_orders_that_cannot_be(orders):
    with pytest.raises(ValueError, match="increasing order"):
        ngram_matches(np.zeros(7, np.uint8), orders)


# Data


def test_splits_cover_the_text_once(data):
    bounds = [data.bounds[s] for s in ("train", "val", "test")]
    ends = [end for _, end in bounds]
    assert [begin for begin, _ in bounds] == [0, *ends[:-1]]
    assert ends[-1] == len(data.corpus.tokens)
    assert (bounds[2][1] - bounds[2][0]) / len(data.corpus.tokens) == pytest.approx(0.1, abs=1e-4)


def test_training_never_touches_the_other_splits(data):
    batch = data.batch("train", [0, data.size("train") - 1])
    end = data.bounds["train"][1]
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {"tokens": (2, CONTEXT), "ngram_matches": (2, CONTEXT, 3), "targets": (2, CONTEXT)}
    assert batch["tokens"][0].tolist() == tokens_of(data)[:CONTEXT].tolist()
    assert batch["targets"][1].tolist() == tokens_of(data)[end - CONTEXT : end].tolist()
    assert len(data.spec()["ngram_text"]) == end


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_byte_of_a_split_is_predicted_once_with_half_a_context_before_it(data, split):
    predicted = []
    for batch in data.eval_dataloader(split):
        for row, targets in zip(batch["tokens"], batch["targets"], strict=True):
            scored = targets != IGNORE_INDEX
            assert scored.nonzero()[0] >= CONTEXT - CONTEXT // 2 - 1
            assert scored[-1]
            assert row[1:][scored[:-1]].equal(targets[:-1][scored[:-1]])  # a target is the next byte
            predicted += targets[scored].tolist()
    begin, end = data.bounds[split]
    assert predicted == tokens_of(data)[begin:end].tolist()


def test_setup_may_run_twice(data):
    before = data.ngram_matches
    data.setup()
    assert data.ngram_matches is before


@pytest.mark.parametrize("context", [1, 10**6])
def test_context_that_does_not_fit(context):
    with pytest.raises(ValueError, match=r"data\.context"):
        Data(DataConfig(context=context)).setup()


# Model


def test_the_future_never_moves_a_prediction(data):
    adapter, cut = make_adapter(data), 23
    batch = data.batch("train", [1009, 2003])
    other = {name: value.clone() for name, value in batch.items()}
    other["tokens"][:, cut:] = 65
    other["ngram_matches"][:, cut:] = 66
    with torch.inference_mode():
        ours, theirs = adapter(batch), adapter(other)
    assert torch.equal(ours[:, :cut], theirs[:, :cut])
    assert not torch.allclose(ours[:, cut:], theirs[:, cut:])


def test_matched_bytes_matter_at_every_order(data):
    adapter = make_adapter(data)
    batch = data.batch("train", [1009])
    for order in range(len(ORDERS)):
        other = dict(batch, ngram_matches=batch["ngram_matches"].clone())
        other["ngram_matches"][:, -1, order] = 7
        with torch.inference_mode():
            assert not torch.allclose(adapter(batch)[:, -1], adapter(other)[:, -1])


def test_without_ngram_lookup():
    data = Data(DataConfig(context=CONTEXT, ngram_lookup=[], batch_size=BATCH))
    data.setup()
    batch = data.batch("train", [5, 7, 11])
    assert batch["ngram_matches"].shape == (3, CONTEXT, 0)
    adapter = make_adapter(data)
    assert adapter(batch).shape == (3, CONTEXT, 256)
    mean_loss(adapter.loss(adapter(batch), batch)).backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_a_tied_head_is_the_embedding_and_starts_without_an_opinion():
    torch.manual_seed(5)
    adapter = Adapter(ModelConfig(dim=24, num_heads=3, tie_word_embeddings=True), PositionConfig(), spec_of(101))
    tokens = torch.randint(101, (3, CONTEXT + 1))
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
    assert mean_loss(adapter.loss(adapter(batch), batch)).item() == pytest.approx(log(101), abs=0.1)
    assert {p.shape for p in adapter.parameters() if 101 in p.shape} == {(101, 24)}
    before = adapter(batch)
    with torch.no_grad():
        adapter.embed.weight[7] = 1e3 * adapter.embed.weight[11]  # 7 is not read by those before it
    after = adapter(batch)
    blind = (tokens[:, :-1] == 7).cumsum(1) == 0
    assert torch.allclose(after[blind][:, 7], 1e3 * before[blind][:, 11], rtol=1e-4, atol=1e-3)
    assert torch.equal(after[blind][:, 8:], before[blind][:, 8:])


def test_ngram_lookup_needs_bytes():
    with pytest.raises(ValueError, match=r"not a vocabulary of 101; set data\.ngram_lookup=\[\]"):
        Adapter(ModelConfig(), PositionConfig(), spec_of(101) | {"ngram_orders": ORDERS})


def test_measures_count_scored_bytes_and_start_at_eight_bits(data):
    adapter = make_adapter(data)
    torch.nn.init.zeros_(adapter.lm_head.weight)
    batch = data.batch("test", [0, 1])
    values = adapter.metrics(adapter(batch), batch)
    assert values["bits_per_byte"].shape == (2 * (CONTEXT // 2),)
    assert values["bits_per_byte"].mean().item() == pytest.approx(8.0)
    assert mean_loss(adapter.loss(adapter(batch), batch)).item() == pytest.approx(8 * log(2))


# Generation


@pytest.mark.parametrize("kind", [PositionKind.rotary, PositionKind.learned])
def test_cached_text_is_the_uncached_text(data, kind):
    adapter = make_adapter(data, kind)
    how = Sampling(length=3 * CONTEXT, temperature=0)  # the window restarts several times
    for prompt in (b"A", tokens_of(data)[5000:5101].tobytes()):
        assert list(generate(adapter, prompt, how)) == list(generate(adapter, prompt, how, cached=False))


def test_text_of_any_vocabulary():
    torch.manual_seed(7)
    adapter = Adapter(
        ModelConfig(dim=24, num_heads=3, tie_word_embeddings=True), PositionConfig(PositionKind.rotary), spec_of(1009)
    )
    how = Sampling(length=2 * CONTEXT, temperature=1.0)
    written = list(generate(adapter, [1008, 0, 257], how))
    assert written == list(generate(adapter, [1008, 0, 257], how, cached=False))
    assert max(written) > 255
    for prompt in ([1009], [3, -1]):
        with pytest.raises(ValueError, match="must lie in 0 to 1008"):
            next(generate(adapter, prompt, how))


def test_generation_sees_what_training_sees(trained, data):
    """The first byte is the likeliest one under a plain call on the same window."""
    begin = data.bounds["train"][1]
    spot = begin - 2 * CONTEXT
    batch = {name: value[:, :-1] for name, value in data.batch("train", [spot]).items()}
    with torch.inference_mode():
        want = trained(batch)[0, -1].argmax().item()
    spec = dict(data.spec(), ngram_text=data.spec()["ngram_text"][:spot])
    short = Adapter(trained.config, PositionConfig(kind=PositionKind.rotary), spec)
    short.load_state_dict(trained.state_dict())
    prompt = tokens_of(data)[spot : spot + CONTEXT - 1].tobytes()
    assert next(generate(short, prompt, Sampling(temperature=0))) == want


def test_seed_and_top_k(trained):
    how = Sampling(length=41, temperature=1.5, seed=5)
    assert list(generate(trained, b"The ", how)) == list(generate(trained, b"The ", how))
    assert list(generate(trained, b"The ", how)) != list(generate(trained, b"The ", Sampling(41, 1.5, seed=6)))


@pytest.mark.parametrize("wrong", [{"length": 0}, {"temperature": -1.0}, {"top_k": 0}])
def test_sampling_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="sampling needs"):
        Sampling(**wrong)


# Commands


def test_training_learns_and_evaluate_reports_it(trained, data, tmp_path):
    (tmp_path / "metrics.csv").write_text(f"step,train/loss,val/loss\n9,{log(16)},\n19,,{log(8)}\n")
    result = evaluate(trained, data, tmp_path / "evaluate", "val")
    begin, end = data.bounds["val"]
    score = result.scores[0]
    assert score.value == pytest.approx(mean_metrics(trained, data.eval_dataloader("val"))["bits_per_byte"])
    assert 1.0 < score.value < 4.5  # 8 before training
    sizes = [len(lzma.compress(tokens_of(data)[:n].tobytes(), preset=9)) for n in (begin, end)]
    assert score.baseline_value == pytest.approx(8 * (sizes[1] - sizes[0]) / (end - begin))
    with (tmp_path / "evaluate" / "documents.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["bytes"]) for row in rows) == end - begin
    whole = sum(int(row["bytes"]) * float(row["bits_per_byte"]) for row in rows) / (end - begin)
    assert whole == pytest.approx(score.value, abs=1e-3)
    assert len((tmp_path / "evaluate" / "sample.txt").read_text(encoding="utf-8")) > 100
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in result.figures)
    assert result.figures
    json.dumps(result.metrics)


def test_evaluate_knows_no_training_split(trained, data, tmp_path):
    with pytest.raises(ValueError, match="split=val or split=test"):
        evaluate(trained, data, tmp_path / "none", "train")
    assert not (tmp_path / "none").exists()


def test_curves_are_in_bits_and_optional(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_curves(path) == {"training": [], "validation": []}
    path.write_text(f"step,train/loss,val/loss\n9,{log(16)},\n19,,{log(8)}\n")
    curves = read_curves(path)
    assert curves["training"] == [(10, pytest.approx(4.0))]
    assert curves["validation"] == [(20, pytest.approx(3.0))]


@pytest.mark.parametrize("prompt", [r"From $\x to $6, then", "one line\nand another", "a" * 500, "\n"])
def test_a_title_is_text_as_it_stands(prompt, tmp_path):
    figure = picture({"training": [], "validation": []}, 2.0, 3.0, "test", prompt, "$_{")
    figure.savefig(tmp_path / "language.png")
    title = figure.axes[1].get_title(loc="left")
    assert title == f"Written by the model after “{prompt.splitlines()[0][:80]}”"


def test_an_empty_split_says_which_are_not():
    data = Data(DataConfig(context=CONTEXT, ngram_lookup=[], test=0))
    data.setup()
    with pytest.raises(ValueError, match="the test split is empty; possible: train, val"):
        data.eval_dataloader("test")


def test_predict_goes_on_from_a_prompt_or_a_file(trained, tmp_path):
    text, record = predict(trained, "The é ", tmp_path / "a")
    described = json.loads(record.read_text(encoding="utf-8"))
    assert described["texts"] == [{"prompt": "The é ", "continuation": text.read_text(encoding="utf-8")}]
    assert described["settings"]["length"] == Sampling().length
    assert described["tokens_per_second"] > 0
    file = tmp_path / "prompt.txt"
    file.write_bytes("The é ".encode())
    assert predict(trained, str(file), tmp_path / "b")[0].read_bytes() == text.read_bytes()


def test_predict_writes_nothing_for_an_empty_prompt(trained, tmp_path):
    with pytest.raises(ValueError, match="prompt is empty"):
        predict(trained, "", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_predict_needs_a_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer; domains\.text\.generate\.generate_tokens"):
        predict(Adapter(ModelConfig(), PositionConfig(), spec_of(101)), "The ", tmp_path / "none")
    assert not (tmp_path / "none").exists()
