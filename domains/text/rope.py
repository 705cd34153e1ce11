"""Rotary positions in the configuration of transformers, both ways: `rope_parameters`, or `rope_scaling` before version
5.

Source: modeling_rope_utils.py of transformers 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any

from core.config import PositionConfig, PositionKind, RotaryScaling, ScalingKind
from domains.text.config_json import HfConfig, boolean, number

Rope = Mapping[str, Any]
TYPE, CONTEXT = ("rope_type", "type"), "original_max_position_embeddings"

# The settings of each rope_type, beside its type and rope_theta; ours -> theirs.
FIELDS = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_context": CONTEXT,
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_context": CONTEXT,
        "beta_slow": "beta_slow",
        "beta_fast": "beta_fast",
        "truncate": "truncate",
        "attention_factor": "attention_factor",
    },
    "longrope": {"factors": "short_factor", "attention_factor": "attention_factor"},
}
# Settings that are no fields of ours, and settings that do not change the frequencies.
EXTRA_FIELDS = {"yarn": {"mscale", "mscale_all_dim"}, "longrope": {"long_factor", "factor", CONTEXT}}
NEUTRAL_FIELDS = {*TYPE, "rope_theta", "partial_rotary_factor", "finetuned"}
REQUIRED = {"linear": {"factor"}, "llama3": {"factor", "low_freq_factor", "high_freq_factor"}, "yarn": {"factor"}}
REQUIRED |= {"longrope": {"short_factor", "long_factor"}}


def our_position(theirs: HfConfig) -> PositionConfig:
    """Return the rotary position of a Llama's config.json.

    Raises:
        ValueError: for what has no counterpart here: another rope_type, a part of each head that is rotated, values
            that are no numbers.
    """
    rope = theirs.get("rope_scaling") or theirs.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError(f"rope_parameters={rope} cannot be imported; possible: one for all layers")
    rope = dict(rope)
    for name, neutral in {"partial_rotary_factor": 1, "rotary_pct": 1, "rope_interleaved": False}.items():
        if (value := rope.get(name, theirs.get(name))) not in (None, neutral):
            raise ValueError(f"{name}={value} cannot be imported; possible here: {neutral}")
    base = number("rope_theta", rope.get("rope_theta") or theirs.get("rope_theta") or 10_000.0)
    if base <= 1:
        raise ValueError(f"rope_theta={base} must be above 1, the longest wavelength of the rotation")
    return PositionConfig(PositionKind.rotary, base=base, scaling=_scaling(rope, theirs))


def their_rope(position: PositionConfig, context: int) -> dict[str, Any]:
    """Return the rope_parameters of a model with our position."""
    scaling = position.scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": position.base}
    kind = "longrope" if scaling.kind is ScalingKind.factors else scaling.kind.value
    parameters = {theirs: getattr(scaling, ours) for ours, theirs in FIELDS[kind].items()}
    if kind == "longrope":
        parameters |= {"long_factor": parameters["short_factor"], CONTEXT: context, "factor": 1.0}
    return {"rope_type": kind, "rope_theta": position.base, **parameters}


def _scaling(rope: Rope, theirs: HfConfig) -> RotaryScaling | None:
    kind = next((rope[name] for name in TYPE if rope.get(name)), "default")
    if not isinstance(kind, str) or kind not in FIELDS:
        possible = ", ".join(FIELDS)
        raise ValueError(
            f"rope_type={kind!r:.40} cannot be imported: its frequencies are not known here; possible: {possible}"
        )
    if unknown := sorted(rope.keys() - NEUTRAL_FIELDS - set(FIELDS[kind].values()) - EXTRA_FIELDS.get(kind, set())):
        raise ValueError(f"rope_type={kind!r} cannot be imported with {', '.join(unknown)}, which is not known here")
    if missing := sorted(name for name in REQUIRED.get(kind, ()) if rope.get(name) is None):
        raise ValueError(f"rope_type={kind!r} needs {', '.join(missing)}")
    if kind == "default":
        return None
    if kind == "longrope":
        return _longrope(rope, theirs)
    given = {ours: rope[name] for ours, name in FIELDS[kind].items() if rope.get(name) is not None}
    scaling = RotaryScaling(ScalingKind(kind))
    for name, value in given.items():
        if name == "truncate":
            boolean(rope, name, True)
        elif name != "original_context":
            given[name] = number(name, value)
    scaling = replace(scaling, **given)
    if "original_context" in FIELDS[kind]:
        scaling.original_context = _context(rope, theirs)
    if kind == "yarn" and "attention_factor" not in given:
        scaling.attention_factor = yarn_attention(scaling.factor, rope.get("mscale"), rope.get("mscale_all_dim"))
    return scaling


def yarn_attention(factor: float, mscale: float | None = None, mscale_all: float | None = None) -> float:
    """Return 1 + ln(factor) / 10, as YaRN recommends (Peng et al. 2023, section 3.4); DeepSeek uses a ratio of two of
    these."""

    scale = number("factor", factor)

    def size(of: float) -> float:
        return 1.0 if scale <= 1 else 0.1 * of * log(scale) + 1.0

    if mscale and mscale_all:
        return size(number("mscale", mscale)) / size(number("mscale_all_dim", mscale_all))
    return size(1.0)


def _longrope(rope: Rope, theirs: HfConfig) -> RotaryScaling:
    """Return a LongRoPE that divides short and long texts alike; frequencies that change with the length are
    refused."""
    short, long = (_numbers(name, rope[name]) for name in ("short_factor", "long_factor"))
    original, most = _context(rope, theirs), number("max_position_embeddings", theirs.get("max_position_embeddings"))
    if short != long and most > original:
        raise ValueError(
            "rope_type='longrope' cannot be imported where short_factor and long_factor differ: the frequencies would "
            "change with the length of a text"
        )
    attention = rope.get("attention_factor")
    if attention is None:
        factor = number("factor", most / original if rope.get("factor") is None else rope["factor"])
        attention = 1.0 if factor <= 1 else (1 + log(factor) / log(original)) ** 0.5
    return RotaryScaling(ScalingKind.factors, factors=short, attention_factor=number("attention_factor", attention))


def _context(rope: Rope, theirs: HfConfig) -> int:
    """Return the original context length: config.json's own value comes before that of the rope settings, as in
    transformers."""
    length = theirs.get(CONTEXT) or rope.get(CONTEXT) or theirs.get("max_position_embeddings")
    if isinstance(length, bool) or not isinstance(length, int) or length < 2:
        raise ValueError(f"{CONTEXT}={length!r} must be a whole number of tokens")
    return length


def _numbers(name: str, values: Any) -> list[float]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"{name}={values!r} must be a list of numbers")
    return [number(name, value) for value in values]
