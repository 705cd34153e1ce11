"""Llama-family models in GGUF files (llama.cpp), quantised or not, by the package gguf: an extra.

    theirs, state, tokenizer = read_gguf(Path("model.gguf"))        # in the format of transformers

Source: the specification of GGUF, and llama.cpp's convert_hf_to_gguf.py, whose steps are reversed.

Shapes: D head width · C width
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.convert import half_split
from domains.text.config_json import number, positive_int
from domains.text.rope import our_position, yarn_attention
from domains.text.tokenizers import Subwords, bpe_from_merges, with_prompt_tokens

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
# Other settings of "llama.": read below, or without effect on our model if they have one of these values.
OTHER_SETTINGS = ("attention.head_count_kv", "rope.freq_base", "vocab_size", "rope.scale_linear")
NEUTRAL = {
    "rope.scaling.finetuned": (True, False),
    "rope.scaling.yarn_ext_factor": (1, -1),
    "rope.scaling.yarn_log_multiplier": (0,),
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "attention.scale": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
}
ROPE = {  # llama.cpp's, behind "rope.scaling." -> transformers'
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
ATTENTION_FACTORS = ("attn_factor", "yarn_attn_factor")  # factors of the rotated queries and keys; either name
TOKENS, TOKEN_TYPES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges"))
CONTROL, USER_DEFINED = 3, 4  # types of tokens that no text spells, and that every text may spell
WEIGHT = re.compile(r"(?:blk\.(\d+)\.)?(?P<part>\w+)\.(weight|bias)")
BOS, EOS = 11, 11  # of byte pairs, if the file gives none (llama-vocab.cpp)
# Whether numbers are split into digits, by pre-tokenizer:
SPLIT_DIGITS = {"smollm": True, "gpt-2": False, "default": False}


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Subwords]:
    """Return the content of a config.json, the weights in float32 under the names of LlamaForCausalLM, and the
    tokenizer.

    Raises:
        ValueError: without the package, or for another kind of file, another architecture, or an unknown tokenizer.
    """
    try:
        package: Any = import_module("gguf")
    except ModuleNotFoundError as error:
        raise ValueError("GGUF files need the package gguf: pip install -e '.[gguf]'") from error
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with _gguf_errors(path):
        file = package.GGUFReader(path)
        metadata = {name: field.contents() for name, field in file.fields.items()}
    if metadata.get("general.architecture") != "llama":
        raise ValueError(
            f"{path} holds a {metadata.get('general.architecture')}; possible: llama, which SmolLM2 is, too"
        )
    if metadata.get("split.count", 1) not in (0, 1):
        raise ValueError(f"{path} is one of {metadata['split.count']} files of a model; join them: gguf-split --merge")
    theirs = read_config(metadata, tied="output.weight" not in {t.name for t in file.tensors})
    tokenizer = read_tokenizer(metadata)
    with _gguf_errors(path):
        arrays = {t.name: package.quants.dequantize(t.data, t.tensor_type) for t in file.tensors}
    if (divisors := arrays.pop("rope_freqs.weight", None)) is not None:
        theirs["rope_parameters"] = with_frequency_divisors(theirs["rope_parameters"], divisors.flatten().tolist())
    return theirs, rename_weights(arrays, theirs), tokenizer


@contextmanager
def _gguf_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, KeyError, TypeError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path} is no GGUF file, cut short, or quantised in an unknown way ({error})") from error


def _require(metadata: dict[str, Any], names: Iterable[str]) -> None:
    if missing := [name for name in names if name not in metadata]:
        raise ValueError(f"the GGUF file does not say its {', '.join(missing)}")


def read_config(metadata: dict[str, Any], tied: bool) -> dict[str, Any]:
    """Return the configuration as a config.json.

    Raises:
        ValueError: for missing, unsupported and unknown settings.
    """
    _require(metadata, [f"llama.{name}" for name in SIZES.values()] + [TOKENS])
    settings = {name.removeprefix("llama."): value for name, value in metadata.items() if name.startswith("llama.")}
    theirs = {ours: settings[name] for ours, name in SIZES.items()}
    theirs |= {"model_type": "llama", "vocab_size": len(metadata[TOKENS]), "tie_word_embeddings": tied}
    theirs["num_key_value_heads"] = settings.get("attention.head_count_kv", theirs["num_attention_heads"])
    theirs["rope_parameters"] = read_rope(settings)
    our_position(theirs)  # raises for unsupported values
    width = _head_width(theirs)
    head_widths = dict.fromkeys(("rope.dimension_count", "attention.key_length", "attention.value_length"), (width,))
    supported = {*SIZES.values(), *OTHER_SETTINGS, *(f"rope.scaling.{name}" for name in (*ROPE, *ATTENTION_FACTORS))}
    for name in sorted(settings.keys() - supported):
        possible = (NEUTRAL | head_widths).get(name)
        if possible is None or settings[name] not in possible:
            here = f"possible here: {' or '.join(map(str, possible))}" if possible else "it is not known here"
            raise ValueError(
                f"the GGUF file says llama.{name}={settings[name]!r:.40}, which cannot be imported; {here}"
            )
    return theirs


def _head_width(theirs: dict[str, Any]) -> int:
    C = positive_int("embedding_length", theirs["hidden_size"])
    return C // positive_int("head_count", theirs["num_attention_heads"])


def read_rope(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the rope_parameters of transformers. A factor alone is linear, in `rope.scale_linear` too
    (llama-model.cpp)."""
    base = settings.get("rope.freq_base", 10_000.0)
    scaling = {
        theirs: settings[f"rope.scaling.{name}"] for name, theirs in ROPE.items() if f"rope.scaling.{name}" in settings
    }
    kind, factor = scaling.get("rope_type", "linear"), scaling.get("factor") or settings.get("rope.scale_linear") or 1.0
    sizes = [settings[f"rope.scaling.{name}"] for name in ATTENTION_FACTORS if settings.get(f"rope.scaling.{name}")]
    plain = kind == "none" or (kind == "linear" and factor == 1)
    if kind == "yarn":
        scaling |= {"attention_factor": number("attn_factor", sizes[0]) * yarn_attention(factor)} if sizes else {}
    elif any(size != 1 for size in sizes):
        raise ValueError(f"the GGUF file scales by an attn_factor of {sizes[0]}, which is known with yarn alone")
    if plain:
        return {"rope_type": "default", "rope_theta": base}
    if kind == "linear":
        return {"rope_type": kind, "rope_theta": base, "factor": factor}
    return {"rope_theta": base, **scaling, "factor": factor}


def with_frequency_divisors(parameters: dict[str, Any], divisors: list[float]) -> dict[str, Any]:
    """Return the parameters of a Llama 3, whose `rope_freqs` divide each frequency: a LongRoPE that is the same for all
    lengths.
    """
    if parameters["rope_type"] != "default":
        raise ValueError(f"the GGUF file scales its rotation twice, by rope_freqs and by {parameters['rope_type']}")
    alike = {"short_factor": divisors, "long_factor": divisors, "attention_factor": 1.0}
    return parameters | {"rope_type": "longrope", **alike}


def rename_weights(arrays: dict[str, np.ndarray], theirs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights under transformers' names; queries and keys rotate halves of a head, not neighbouring
    features."""
    state, heads = {}, {"attn_q": theirs["num_attention_heads"], "attn_k": theirs["num_key_value_heads"]}
    for name, array in arrays.items():
        found = WEIGHT.fullmatch(name)
        if found is None or found["part"] not in NAMES:
            raise ValueError(f"the GGUF file has weights {name} that no Llama has")
        block, part, kind = found.groups()
        weight = torch.from_numpy(np.array(array, np.float32))
        if part in heads:
            if heads[part] < 1 or len(weight) % (2 * heads[part]):
                raise ValueError(
                    f"the GGUF file has {len(weight)} rows in {name}, which {heads[part]} heads cannot share"
                )
            weight = weight[half_split(heads[part], len(weight) // heads[part])]  # (H · D, C)
        prefix = "" if block is None else f"model.layers.{block}."
        state[f"{prefix}{NAMES[part]}.{kind}"] = weight
    return state


def read_tokenizer(metadata: dict[str, Any]) -> Subwords:
    """Return byte pairs like GPT-2's."""
    kind, before = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or before not in SPLIT_DIGITS:
        raise ValueError(f"the GGUF file has a tokenizer {kind} ({before}); possible: gpt2 ({', '.join(SPLIT_DIGITS)})")
    _require(metadata, (TOKENS, TOKEN_TYPES, MERGES))
    tokens, token_types = metadata[TOKENS], metadata[TOKEN_TYPES]
    merges = [tuple(merge.split(" ")) for merge in metadata[MERGES]]
    if len(tokens) != len(token_types) or any(len(merge) != 2 for merge in merges):
        raise ValueError(
            f"the GGUF file has {len(tokens)} tokens and {len(token_types)} kinds of them, or merges of no pairs"
        )
    result = bpe_from_merges(
        {token: number for number, token in enumerate(tokens)},
        merges,
        [token for token, kind in zip(tokens, token_types, strict=True) if kind == CONTROL],
        [token for token, kind in zip(tokens, token_types, strict=True) if kind == USER_DEFINED],
        digits=SPLIT_DIGITS[before],
    )
    return with_prompt_tokens(
        result,
        _special_token(metadata, "bos", BOS),
        _special_token(metadata, "eos", EOS),
        metadata.get("tokenizer.chat_template"),
    )


def _special_token(metadata: dict[str, Any], which: str, default: int) -> list[int]:
    """Return the token that begins or ends a text, if the file asks for one."""
    if not metadata.get(f"tokenizer.ggml.add_{which}_token", False):
        return []
    token = metadata.get(f"tokenizer.ggml.{which}_token_id", default)
    if not isinstance(token, int) or not 0 <= token < len(metadata[TOKENS]):
        raise ValueError(f"the GGUF file has no token {token}, its {which}_token_id, among {len(metadata[TOKENS])}")
    return [token]
