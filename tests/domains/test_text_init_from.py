"""What a language model can begin with of another one."""

import sys
from types import SimpleNamespace

import pytest
import torch

from core.config import PositionConfig, PositionKind
from domains.text import gguf
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.init_from import fitted
from domains.text.tokenizers import Characters
from experiments.compose import compose

SPEC = {
    "context": 13,
    "vocab_size": 9,
    "ngram_orders": [],
    "ngram_text": "",
    "tokenizer": Characters("abcdefgh\n").spec(),
}


def make(**settings) -> Adapter:
    torch.manual_seed(3)
    return Adapter(ModelConfig(dim=24, num_heads=3, **settings), PositionConfig(PositionKind.rotary), SPEC)


def test_another_tokenizer_numbers_tokens_otherwise():
    adapter, state = make(), make().state_dict()
    assert fitted(adapter, state, SPEC).keys() == state.keys()
    kept = fitted(adapter, state, SPEC | {"tokenizer": Characters("abcdefghi").spec()})
    assert {name.split(".")[0] for name in state.keys() - kept.keys()} == {"embed", "lm_head"}


def test_a_low_rank_model_begins_as_the_one_it_changes():
    base, adapter = make(), make(lora_rank=3)
    adapter.load_state_dict(fitted(adapter, base.state_dict(), SPEC), strict=False)
    tokens = torch.randint(9, (5, 13))
    torch.testing.assert_close(adapter({"tokens": tokens}), base({"tokens": tokens}))


def test_a_low_rank_model_keeps_tokens_that_it_must_have_from_somewhere():
    state, other = make().state_dict(), SPEC | {"tokenizer": Characters("abcdefghi").spec()}
    message = r"model\.lora_rank=3 keeps embed\.weight, lm_head\.weight as they are, .* give data\.tokenizer=file"
    with pytest.raises(ValueError, match=message):
        fitted(make(lora_rank=3), state, other)
    with pytest.raises(ValueError, match=message):  # of another domain, whose core alone is taken
        fitted(make(lora_rank=3), {name: state[name] for name in state if "blocks" in name}, SPEC)


def test_a_low_rank_model_changes_another_run():
    small = ["domain=text", "model.lora_rank=8"]
    with pytest.raises(ValueError, match=r"model\.lora_rank=8 changes another run's weights: give init=FOLDER"):
        compose("config", small)
    assert compose("config", [*small, "init=runs/gpt2"]).model.lora_rank == 8


SAID = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2"}
SAID |= {f"llama.{name}": 2 for name in gguf.SIZES.values()}
WORDS = {f"tokenizer.ggml.{name}": [] for name in ("tokens", "token_type", "merges")}


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"general.architecture": "gemma"}, "holds a gemma; possible: llama"),
        (SAID, r"does not say its tokenizer\.ggml\.tokens"),
        (SAID | dict(list(WORDS.items())[:2]), r"does not say its tokenizer\.ggml\.merges"),
        (SAID | WORDS | {"tokenizer.ggml.model": "spm"}, r"has a tokenizer spm \(default\); possible: gpt2"),
    ],
)
def test_a_gguf_file_is_judged_before_its_weights_are_unpacked(tmp_path, monkeypatch, known, message):
    fields = {name: SimpleNamespace(contents=lambda value=value: value) for name, value in known.items()}
    file = SimpleNamespace(fields=fields, tensors=[SimpleNamespace(name="output.weight", data=None, tensor_type=None)])
    package = SimpleNamespace(GGUFReader=lambda path: file, quants=SimpleNamespace(dequantize=None))  # would fail
    monkeypatch.setitem(sys.modules, "gguf", package)
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ValueError, match=message):
        gguf.read_gguf(tmp_path / "a.gguf")


def test_a_rank_that_cannot_be():
    with pytest.raises(ValueError, match=r"model\.lora_rank=0 must be at least 1"):
        make(lora_rank=0)
