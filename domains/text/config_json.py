"""The settings of a config.json of transformers: each is applied, ignored as harmless, refused, or named in a warning.

Every function raises ValueError for a value that is not possible.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from domains.data_warnings import warn_data

HfConfig = Mapping[str, Any]  # the content of a config.json

# Settings that change the outputs unless they have one of these values, and are not supported here.
NEUTRAL: dict[str, Sequence[Any]] = {
    "quantization_config": (),
    "sliding_window": (),
    "use_sliding_window": (False,),
    "layer_types": (),
    "no_rope_layers": (),
    "final_logit_softcapping": (),
    "attn_logit_softcapping": (),
    "query_pre_attn_scalar": (),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "attention_multiplier": (),
    "num_local_experts": (0, 1),
    "num_experts": (0, 1),
    "qk_norm": (False,),
    "use_qk_norm": (False,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "is_decoder": (True, False),
    "cross_attention_hidden_size": (),
}
# Settings that change no output: training, files, tokens (the tokenizer has them), how transformers runs a model.
HARMLESS = {
    *("architectures", "attn_implementation", "auto_map", "dtype", "torch_dtype", "transformers_version", "use_cache"),
    *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
    *("chunk_size_feed_forward", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
    *("is_encoder_decoder", "is_llama_config", "model_type", "name_or_path", "n_ctx", "n_positions", "pretraining_tp"),
    *("output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate", "torchscript"),
    *("reorder_and_upcast_attn", "task_specific_params", "tokenizer_class", "transformers.js_config", "gguf_file"),
    *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping", "length_penalty"),
    *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id"),
    *("max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences"),
    *("output_scores", "prefix", "remove_invalid_values", "repetition_penalty", "suppress_tokens", "temperature"),
    *("tf_legacy_loss", "top_k", "top_p", "typical_p", "use_bfloat16", "max_window_layers"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    *("tie_encoder_decoder", "pruned_heads", "add_bos_token", "add_eos_token", "unsloth_version", "unsloth_fixed"),
}
# Settings of the two model types, each applied or refused in convert.py.
SUPPORTED = {
    "gpt2": {
        *("activation_function", "add_cross_attention", "layer_norm_epsilon", "n_embd", "n_head", "n_inner", "n_layer"),
        *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "vocab_size"),
    },
    "llama": {
        *("attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings"),
        *("mlp_bias", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps"),
        *("original_max_position_embeddings", "partial_rotary_factor", "rope_interleaved", "rope_parameters"),
        *("rope_scaling", "rope_theta", "rotary_pct", "tie_word_embeddings", "vocab_size"),
    },
}


def required_sizes(theirs: HfConfig, *names: str) -> list[int]:
    """Return sizes that must be given."""
    missing = [name for name in names if theirs.get(name) is None]
    if missing:
        raise ValueError(f"the configuration of a {theirs['model_type']} model lacks {', '.join(missing)}")
    return [positive_int(name, theirs[name]) for name in names]


def positive_int(name: str, value: Any) -> int:
    """Check a size."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r:.80} must be a whole number of at least 1")
    return value


def number(name: str, value: Any) -> float:
    """Check a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{name}={value!r:.80} must be a number")
    return float(value)


def fraction(theirs: HfConfig, name: str, default: float) -> float:
    """Return a number from 0 to 1, such as the ε of a norm."""
    value = theirs.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r:.80} must be a number from 0 to 1")
    return float(value)


def boolean(theirs: HfConfig, name: str, default: bool) -> bool:
    """Return a setting that is true or false."""
    value = default if theirs.get(name) is None else theirs[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r:.80} must be true or false")
    return value


def check_unread(theirs: HfConfig) -> None:
    """Refuse settings that change the outputs and are not supported here; warn of unknown ones."""
    allow_only(theirs, **NEUTRAL)
    known = SUPPORTED[theirs["model_type"]] | NEUTRAL.keys() | HARMLESS
    unknown = [f"{k}={v!r:.40}" for k, v in theirs.items() if k.lstrip("_") not in known and v not in (None, False)]
    if unknown:
        shown = ", ".join(unknown[:8])
        warn_data(f"{len(unknown)} settings of config.json are not known here and change nothing: {shown}")


def allow_only(theirs: HfConfig, **possible: Sequence[Any]) -> None:
    """Refuse settings other than these. A missing one, or None, is the default there."""
    for name, values in possible.items():
        if (value := theirs.get(name)) is not None and value not in values:
            here = " or ".join(map(repr, values)) or "none"
            raise ValueError(f"{name}={value!r:.80} cannot be imported; possible here: {here}")
