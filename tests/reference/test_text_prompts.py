"""Prompts begin as transformers begins them, for tokenizers made here; and go on as its models do."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from core.config import PositionConfig, PositionKind
from domains.data_warnings import DataWarning, record_data_warnings
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.explain import explanations
from domains.text.export import export
from domains.text.generate import Sampling, generate_text
from domains.text.predict import write_continuations
from domains.text.prompts import encode_prompts
from domains.text.tokenizers import load_tokenizer, read_tokenizer, train_bpe

TEXT = "The 13 cats sat on 7 mats, and the naïve dogs on 5 logs. " * 19
PROMPTS = ("the cats", " ", "  on mats\n", "naïve", "a <s>the</s> b", "<s>the", "<|im_start|>user")


def byte_level(template: str | None = None) -> Tokenizer:
    pieces = Tokenizer.from_str(train_bpe([TEXT], 277).definition)
    pieces.add_special_tokens(["<s>", "</s>", "<|im_start|>"])
    if template:
        told = [(name, pieces.token_to_id(name)) for name in ("<s>", "</s>") if name in template]
        pieces.post_processor = processors.TemplateProcessing(single=template, special_tokens=told)
    return pieces


def roberta() -> Any:
    pieces: Any = byte_level()
    pieces.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.RobertaProcessing(("</s>", pieces.token_to_id("</s>")), ("<s>", pieces.token_to_id("<s>"))),
        ]
    )
    return pieces


def sentence_pieces() -> Tokenizer:
    """As Llama 2's: ▁ for spaces, one of them put before, bytes for what it does not know."""
    vocabulary = ["<unk>", "<s>", "</s>", "<|im_start|>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *"abcdehnorstu"]
    pieces = Tokenizer(
        models.BPE({name: n for n, name in enumerate(vocabulary)}, [], byte_fallback=True, unk_token="<unk>")
    )
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    pieces.add_special_tokens(vocabulary[:4])
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return pieces


def whole_words() -> Tokenizer:
    pieces = Tokenizer(models.WordLevel({"[UNK]": 0, "<s>": 1, "</s>": 2, "the": 3, "cats": 4, "on": 5}, "[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.add_special_tokens(["[UNK]", "<s>", "</s>"])
    return pieces


MADE = {
    "no template": byte_level,
    "a beginning": lambda: byte_level("<s> $A"),
    "a beginning and an end": lambda: byte_level("<s> $A </s>"),
    "two beginnings": lambda: byte_level("<s> <s> $A"),
    "RoBERTa's": roberta,
    "SentencePiece": sentence_pieces,
    "words": whole_words,
}


def saved(folder: Path, pieces: Tokenizer, **told: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pieces.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", **told}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.mark.filterwarnings("ignore:.*(read as text|begin twice|behind a text)")
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_tokens_are_theirs(make, tmp_path):
    folder = saved(tmp_path / "a", make())
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(read_tokenizer(folder).spec())  # as it is read back from a run
    for prompt in PROMPTS:
        wanted = theirs(prompt).input_ids
        if not wanted:
            with pytest.raises(ValueError, match="the tokenizer makes no tokens of the prompt"):
                encode_prompts(ours, [prompt], special=True)
            continue
        assert encode_prompts(ours, [prompt], special=True) == [wanted], prompt
        text = theirs(prompt, split_special_tokens=True).input_ids
        assert encode_prompts(ours, [prompt], special=False) == encode_prompts(ours, [prompt]) == [text], prompt


@pytest.mark.parametrize("told", [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}])
def test_gpt2s_two_files_and_their_configuration(told, tmp_path):
    made = train_bpe([TEXT], 277)
    made.backend.model.save(str(tmp_path))
    told |= {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
        assert encode_prompts(read_tokenizer(tmp_path), ["the cats"]) == [theirs("the cats").input_ids]


def test_a_configuration_that_contradicts_the_template_is_said(tmp_path):
    folder = saved(tmp_path / "a", byte_level(), add_bos_token=True)
    with pytest.warns(DataWarning, match="says add_bos_token=true, and the template of tokenizer.json otherwise"):
        assert not read_tokenizer(folder).prompt_prefix
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    assert theirs("the").input_ids == theirs("the", add_special_tokens=False).input_ids
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is no JSON"):
        read_tokenizer(folder)


def test_special_tokens_are_the_default_where_there_is_a_chat_template(tmp_path):
    plain = read_tokenizer(saved(tmp_path / "a", byte_level("<s> $A")))
    chat = read_tokenizer(saved(tmp_path / "b", byte_level("<s> $A"), chat_template="{{ messages }}"))
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": "{{ messages }}"}]
    again = read_tokenizer(saved(tmp_path / "c", byte_level("<s> $A"), chat_template=named))
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ messages }}")
    of_a_file = read_tokenizer(tmp_path / "a")
    start = byte_level().token_to_id("<|im_start|>")
    for tokenizer in (chat, again, of_a_file):
        assert tokenizer.chat_template == "{{ messages }}"
        with record_data_warnings(show=False) as said:
            assert encode_prompts(tokenizer, ["<|im_start|>user"])[0][1] == start
        assert said == []
    with pytest.warns(DataWarning, match=r"spell 1 special tokens \(first: <\|im_start\|>\), which were read as text"):
        assert start not in encode_prompts(plain, ["<|im_start|>user"])[0]
    with pytest.warns(DataWarning, match="1 of 2 prompts begin twice"):
        encode_prompts(chat, ["<s>the", "the"])
    with pytest.raises(ValueError, match="special=true: this model's tokenizer has no special tokens"):
        encode_prompts(load_tokenizer({"kind": "bytes"}), ["the"], special=True)
    with pytest.raises(ValueError, match="the prompt is empty"):
        encode_prompts(chat, ["the", ""])


@pytest.fixture
def spoken(tmp_path, randomise) -> tuple[Any, Any, Adapter]:
    """A Llama of theirs whose tokenizer begins texts, and the same as ours."""
    folder = saved(tmp_path / "llama", byte_level("<s> $A"))
    sizes: Any = {"vocab_size": 283, "hidden_size": 40, "intermediate_size": 52, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 61}
    model = randomise(LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None)), seed=2)
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    from domains.text.convert import from_transformers

    return model, theirs, from_transformers(model.config.to_dict(), model.state_dict(), read_tokenizer(folder))


def test_text_goes_on_as_theirs_and_does_not_show_the_beginning(spoken, tmp_path):
    model, theirs, ours = spoken
    wanted = []
    for prompt in ("the cats", "on"):
        ids = theirs(prompt, return_tensors="pt").input_ids
        made = model.generate(ids, max_new_tokens=17, do_sample=False, pad_token_id=0, attention_mask=ids * 0 + 1)
        wanted.append(theirs.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    greedy = Sampling(length=17, temperature=0)
    side_by_side, paths = write_continuations(ours, ["the cats", "on"], greedy, tmp_path / "out")
    assert side_by_side.texts == wanted
    assert [generate_text(ours, [prompt], greedy).texts[0] for prompt in ("the cats", "on")] == wanted
    assert "<s>" not in paths[0].read_text(encoding="utf-8")
    assert len(explanations(ours, "the cats")[0].elements) == len(theirs("the cats").input_ids)


def test_a_prompt_that_the_model_cannot_see_all_of_is_said(spoken):
    _, _, ours = spoken
    with pytest.warns(DataWarning, match=r"^1 of 2 prompts are longer .*\(first: 1\d\d tokens\): it sees the last 61$"):
        generate_text(ours, ["the", "the cats" * 50], Sampling(length=3))


def test_what_goes_out_begins_prompts_as_what_came_in(spoken, tmp_path, randomise):
    _, theirs, ours = spoken
    export(ours, PositionConfig(PositionKind.rotary), tmp_path / "out")
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("the cats").input_ids == theirs("the cats").input_ids
    assert again.bos_token == "<s>"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.bos_token_id == again.bos_token_id
    told = read_tokenizer(saved(tmp_path / "chat", byte_level("<s> $A"), chat_template="{{ messages }}"))
    spec = {
        "context": 17,
        "vocab_size": told.vocab_size,
        "ngram_orders": [],
        "ngram_text": "",
        "tokenizer": told.spec(),
    }
    model = ModelConfig(dim=24, num_heads=3)
    export(Adapter(model, PositionConfig(), spec), PositionConfig(), tmp_path / "again")
    exported: Any = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert exported.chat_template == "{{ messages }}"
    assert torch.equal(torch.tensor(exported("on").input_ids), torch.tensor(theirs("on").input_ids))
