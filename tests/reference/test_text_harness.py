"""Our models as lm-evaluation-harness asks them."""

import json
from importlib import import_module
from typing import Any

import pytest
import torch

from core.config import PositionConfig, PositionKind
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.generate import Sampling, generate_text
from domains.text.tokenizers import DOCUMENT_SEPARATOR, Characters

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")

CONTEXT, ALPHABET = 11, "abcde "


def make(alphabet: str = ALPHABET + DOCUMENT_SEPARATOR, **changes: Any) -> Adapter:
    spec = {"context": CONTEXT, "vocab_size": len(alphabet), "ngram_orders": [], "ngram_text": ""}
    torch.manual_seed(1)
    config, tokens = ModelConfig(dim=24, num_heads=3), {"tokenizer": Characters(alphabet).spec()}
    adapter = Adapter(config, PositionConfig(PositionKind.rotary), spec | tokens | changes)
    torch.nn.init.normal_(adapter.lm_head.weight)
    return adapter.eval()


def harness(adapter: Adapter, **options: Any):
    from domains.text.harness import Harness

    return Harness(adapter, **options)


@torch.inference_mode()
def by_hand(adapter: Adapter, before: list[int], after: list[int]) -> tuple[float, bool]:
    """Of texts that fit into a context."""
    logprobs = adapter({"tokens": torch.tensor([before + after[:-1]])})[0].log_softmax(-1)[len(before) - 1 :]
    total = sum(logprob[token].item() for logprob, token in zip(logprobs, after, strict=True))
    return total, logprobs.argmax(-1).tolist() == after


def gen_kwargs(kind: str, *arguments: Any):
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_how_likely_one_text_is_after_another(batch_size):
    adapter = make()
    model, encode = harness(adapter, batch_size=batch_size), Characters(ALPHABET + DOCUMENT_SEPARATOR).encode
    likely = generate_text(adapter, ["ab"], Sampling(length=3, temperature=0)).texts[0]
    pairs = [("ab", "cd"), ("", "abc"), ("abcde", "a"), ("b", "edcb a"), ("ab", likely)]
    found = model.loglikelihood([gen_kwargs("loglikelihood", *pair) for pair in pairs], disable_tqdm=True)
    for (before, after), (nats, greedy) in zip(pairs, found, strict=True):
        want = by_hand(adapter, encode(before or DOCUMENT_SEPARATOR).tolist(), encode(after).tolist())
        assert (nats, greedy) == (pytest.approx(want[0], abs=1e-5), want[1])
    assert found[-1][1]
    assert not found[0][1]


def test_whole_documents_in_the_windows_of_the_harness():
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    adapter, text = make(), "abc de eda cab bad " * 3
    model = harness(adapter)
    tokens = model.tok_encode(text)
    windows = map(make_disjoint_window, get_rolling_token_windows(tokens, model.eot_token_id, CONTEXT, 1))
    want = sum(by_hand(adapter, [*before], [*after])[0] for before, after in windows)
    [found] = model.loglikelihood_rolling([gen_kwargs("loglikelihood_rolling", text)])
    assert found == pytest.approx(want, abs=1e-4)


def test_how_a_text_goes_on():
    adapter = make()
    whole = generate_text(adapter, ["ab"], Sampling(length=9, temperature=0)).texts[0]
    model = harness(adapter)
    request = {"until": [whole[4:6]], "max_gen_toks": 9}
    assert model.generate_until([gen_kwargs("generate_until", "ab", request)]) == [whole[: whole.find(whole[4:6])]]
    assert model.generate_until([gen_kwargs("generate_until", "ab", {"max_gen_toks": 5})]) == [whole[:5]]


def test_minimal_pairs_from_a_file(tmp_path):
    from lm_eval.tasks import TaskManager

    lm_eval, adapter = import_module("lm_eval"), make()
    pairs = [("abc", "cba"), ("dead", "edda"), ("cab", "bac"), ("add", "dad"), ("bed", "deb")]
    lines = [json.dumps({"good": good, "bad": bad}) for good, bad in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "pairs.yaml").write_text(
        f"""
task: pairs
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/pairs.jsonl}}, cache_dir: {tmp_path}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: ""
target_delimiter: ""
doc_to_choice: "{{{{[good, bad]}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""
    )
    found: Any = lm_eval.simple_evaluate(
        model=harness(adapter), tasks=["pairs"], task_manager=TaskManager(include_path=str(tmp_path)), bootstrap_iters=0
    )
    encode = Characters(ALPHABET + DOCUMENT_SEPARATOR).encode
    better = [
        by_hand(adapter, encode(DOCUMENT_SEPARATOR).tolist(), encode(good).tolist())[0]
        > by_hand(adapter, encode(DOCUMENT_SEPARATOR).tolist(), encode(bad).tolist())[0]
        for good, bad in pairs
    ]
    assert found["results"]["pairs"]["acc,none"] == sum(better) / len(better)
    assert 0 < sum(better) < len(better)


def test_models_that_cannot_be_asked():
    for adapter in (
        make(tokenizer=None),
        Adapter(ModelConfig(), PositionConfig(), {"context": 7, "ngram_orders": [2], "ngram_text": ""}),
    ):
        with pytest.raises(ValueError, match=r"needs a model with a tokenizer, and without n-gram lookup"):
            harness(adapter)
    assert harness(make(ALPHABET + "\n")).eot_token_id == 0
