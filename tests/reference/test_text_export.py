"""What goes out is what transformers loads: logits, tokens and greedy text."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.config import Activation, Norm, PositionConfig, PositionKind
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.export import export
from domains.text.generate import Sampling, generate_text
from domains.text.tokenizers import Characters, train_bpe

CONTEXT, TEXT = 53, "the naïve fox 2013 😀"
TOKENIZER = train_bpe(["the quick brown fox jumps over 13 lazy dogs, naïvely 😀 "] * 9, 300)
V = TOKENIZER.vocab_size
SPEC = {"context": CONTEXT, "vocab_size": V, "ngram_orders": [], "ngram_text": "", "tokenizer": TOKENIZER.spec()}
MODELS: dict[str, tuple[dict[str, Any], PositionKind]] = {
    "gpt2": (
        {"activation": Activation.gelu_tanh, "tie_word_embeddings": True, "gpt2_init": True},
        PositionKind.learned,
    ),
    "llama": (
        {"activation": Activation.swiglu, "norm": Norm.rms, "linear_bias": False, "num_kv_heads": 2, "zero_init": True},
        PositionKind.rotary,
    ),
}


@torch.inference_mode()
def logits(model: Any) -> Tensor:
    tokens = torch.randint(V, (2, CONTEXT), generator=torch.Generator().manual_seed(1))
    return model({"tokens": tokens}) if isinstance(model, Adapter) else model(tokens).logits


@pytest.mark.parametrize("lora_rank", [None, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_their_logits_tokens_and_text_are_ours(kind, lora_rank, tmp_path, randomise):
    settings, place = MODELS[kind]
    adapter = randomise(
        Adapter(ModelConfig(dim=24, num_heads=4, lora_rank=lora_rank, **settings), PositionConfig(place), SPEC)
    )
    export(adapter, PositionConfig(place), tmp_path)
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.model_type == kind
    torch.testing.assert_close(logits(theirs), logits(adapter), rtol=0, atol=2e-5)
    spoken: Any = AutoTokenizer.from_pretrained(tmp_path)
    prompt = spoken(TEXT, return_tensors="pt")
    ids = prompt["input_ids"][0].tolist()
    assert ids == TOKENIZER.encode(TEXT).tolist()
    assert spoken.decode(ids) == TEXT
    want = theirs.generate(**prompt, max_new_tokens=7, do_sample=False, pad_token_id=0)[0, len(ids) :]
    written = generate_text(adapter, [TEXT], Sampling(length=7, temperature=0)).texts[0]
    assert written == spoken.decode(want, skip_special_tokens=True)


def test_nothing_is_written_of_a_model_that_they_have_no_like_of(tmp_path):
    spec = {
        "context": CONTEXT,
        "vocab_size": 3,
        "ngram_orders": [],
        "ngram_text": "",
        "tokenizer": Characters("abc").spec(),
    }
    adapter = Adapter(ModelConfig(qk_norm=True), PositionConfig(), spec)
    with pytest.raises(ValueError, match=r"gpt2 has no model\.qk_norm=True"):
        export(adapter, PositionConfig(), tmp_path / "none")
    assert not (tmp_path / "none").exists()
