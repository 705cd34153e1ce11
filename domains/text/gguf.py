"""Llama-family models in GGUF files (llama.cpp), quantised or not, by the package gguf: an extra.

    theirs, state, tokenizer = read_gguf(Path("model.gguf"))        # as transformers has them

Source: the specification of GGUF, and llama.cpp's convert_hf_to_gguf.py, whose steps are taken back.

Shapes: D head width · C width
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.porting import half_split
from domains.text.tokenizers import Subwords, byte_pairs

NAMES = {  # theirs -> transformers'
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SIZES = {  # transformers' -> theirs, behind "llama."
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
TOKENS, KINDS, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
CONTROL = 3  # the kind of a token that no text spells
DIGITS = {"smollm": True, "gpt-2": False, "default": False}  # is each digit a word of its own? by pre-tokenizer


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Subwords]:
    """What a config.json would say, the weights in float32 under the names of LlamaForCausalLM, and the tokenizer.

    Raises:
        ValueError: without the package, or for a file that is none, of another architecture, or of a tokenizer that is
            not known here.
    """
    try:
        package: Any = import_module("gguf")
    except ModuleNotFoundError as error:
        raise ValueError("GGUF files need the package gguf: pip install -e '.[gguf]'") from error
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with _reading(path):
        file = package.GGUFReader(path)
        known = {name: field.contents() for name, field in file.fields.items()}
    if known.get("general.architecture") != "llama":
        raise ValueError(f"{path} holds a {known.get('general.architecture')}; possible: llama, which SmolLM2 is, too")
    theirs = config(known, tied="output.weight" not in {t.name for t in file.tensors})
    pieces = tokenizer(known)
    with _reading(path):
        arrays = {t.name: package.quants.dequantize(t.data, t.tensor_type) for t in file.tensors}
    return theirs, weights(arrays, theirs), pieces


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, KeyError, TypeError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is no GGUF file, cut short, or quantised in an unknown way ({error})") from error


def _needed(known: dict[str, Any], names: Iterable[str]) -> None:
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"the GGUF file does not say its {', '.join(missing)}")


def config(known: dict[str, Any], tied: bool) -> dict[str, Any]:
    """As a config.json."""
    _needed(known, [f"llama.{name}" for name in SIZES.values()] + [TOKENS])
    sizes = {ours: known[f"llama.{name}"] for ours, name in SIZES.items()}
    return {
        "model_type": "llama",
        **sizes,
        "num_key_value_heads": known.get("llama.attention.head_count_kv", sizes["num_attention_heads"]),
        "vocab_size": len(known[TOKENS]),
        "rope_parameters": {"rope_type": "default", "rope_theta": known.get("llama.rope.freq_base", 10_000.0)},
        "tie_word_embeddings": tied,
    }


def weights(arrays: dict[str, np.ndarray], theirs: dict[str, Any]) -> dict[str, Tensor]:
    """Under transformers' names; queries and keys turn halves of a head, as there, and not neighbouring features."""
    state, heads = {}, {"attn_q": theirs["num_attention_heads"], "attn_k": theirs["num_key_value_heads"]}
    for name, array in arrays.items():
        *block, part, kind = name.split(".")
        if part not in NAMES:
            if part == "rope_freqs":  # of Llama 3.1's scaling
                raise ValueError("the GGUF file scales its rotation (rope_freqs), which cannot be imported")
            raise ValueError(f"the GGUF file has weights {name} that no Llama has")
        weight = torch.from_numpy(np.array(array, np.float32))
        if part in heads:
            if heads[part] < 1 or len(weight) % (2 * heads[part]):
                raise ValueError(
                    f"the GGUF file has {len(weight)} rows in {name}, which {heads[part]} heads cannot share"
                )
            weight = weight[half_split(heads[part], len(weight) // heads[part])]  # (H · D, C)
        place = f"model.layers.{block[1]}." if block else ""
        state[f"{place}{NAMES[part]}.{kind}"] = weight
    return state


def tokenizer(known: dict[str, Any]) -> Subwords:
    """Byte pairs as GPT-2 has them."""
    kind, before = known.get("tokenizer.ggml.model"), known.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or before not in DIGITS:
        raise ValueError(f"the GGUF file has a tokenizer {kind} ({before}); possible: gpt2 ({', '.join(DIGITS)})")
    _needed(known, (TOKENS, KINDS, MERGES))
    tokens, kinds = known[TOKENS], known[KINDS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [(left, right) for left, right in (merge.split(" ") for merge in known[MERGES])]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    return byte_pairs(vocabulary, merges, special, digits=DIGITS[before])
