"""Conversion between ESM-2 and our LanguageModel, with the same logits and contacts.

    model = from_esm2(json.loads(Path("config.json").read_text()), load_file("model.safetensors"))
    theirs.load_state_dict(unload(model, esm2(model.config, "transformers")))

    model = LanguageModel(TransformerConfig(dim=320, depth=6, num_heads=20), PositionConfig(PositionKind.rotary))
    load(model, theirs.state_dict(), esm2(model.config, "fair-esm"))

Source: the models of fair-esm 2.0.0 and transformers 5.23.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.config import PositionConfig, PositionKind, TransformerConfig
from core.convert import SAME, Row, Table, Transform, Unused, load, stacked
from domains.protein.language import ALPHABET, MASK, PAD, LanguageModel


class Layout(NamedTuple):
    """The weight names of ESM-2 in a library; {n} is the index of a block."""

    embed: str
    decoder: str  # the same weights, tied
    frequency: str  # of the rotation
    bias: str  # of the decoder
    layers: dict[str, str | tuple[str, ...]]  # ours -> theirs, or several that ours stacks; each has weight and bias
    unused: tuple[str, ...] = ()


LAYOUTS = {
    "fair-esm": Layout(
        embed="embed_tokens.weight",
        decoder="lm_head.weight",
        frequency="layers.{n}.self_attn.rot_emb.inv_freq",
        bias="lm_head.bias",
        layers={
            "transformer.blocks.{n}.norm1": "layers.{n}.self_attn_layer_norm",
            "transformer.blocks.{n}.mixer.qkv": tuple(f"layers.{{n}}.self_attn.{one}_proj" for one in "qkv"),
            "transformer.blocks.{n}.mixer.out": "layers.{n}.self_attn.out_proj",
            "transformer.blocks.{n}.norm2": "layers.{n}.final_layer_norm",
            "transformer.blocks.{n}.feed_forward.up": "layers.{n}.fc1",
            "transformer.blocks.{n}.feed_forward.out": "layers.{n}.fc2",
            "transformer.norm": "emb_layer_norm_after",
            "dense": "lm_head.dense",
            "norm": "lm_head.layer_norm",
            "contact": "contact_head.regression",
        },
    ),
    "transformers": Layout(
        embed="esm.embeddings.word_embeddings.weight",
        decoder="lm_head.decoder.weight",
        frequency="esm.rotary_embeddings.inv_freq",
        bias="lm_head.bias",
        layers={
            "transformer.blocks.{n}.norm1": "esm.encoder.layer.{n}.attention.LayerNorm",
            "transformer.blocks.{n}.mixer.qkv": tuple(
                f"esm.encoder.layer.{{n}}.attention.self.{one}" for one in ("query", "key", "value")
            ),
            "transformer.blocks.{n}.mixer.out": "esm.encoder.layer.{n}.attention.output.dense",
            "transformer.blocks.{n}.norm2": "esm.encoder.layer.{n}.LayerNorm",
            "transformer.blocks.{n}.feed_forward.up": "esm.encoder.layer.{n}.intermediate.dense",
            "transformer.blocks.{n}.feed_forward.out": "esm.encoder.layer.{n}.output.dense",
            "transformer.norm": "esm.encoder.emb_layer_norm_after",
            "dense": "lm_head.dense",
            "norm": "lm_head.layer_norm",
            "contact": "esm.contact_head.regression",
        },
        unused=("esm.embeddings.position_ids", "esm.embeddings.position_embeddings.weight"),
    ),
}

# Defaults of EsmConfig that a config.json leaves out.
DEFAULTS = {
    "position_embedding_type": "absolute",
    "token_dropout": False,
    "tie_word_embeddings": True,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "rope_theta": 10_000.0,
}
# Required values of ESM-2.
FIXED = {
    "model_type": "esm",
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "is_folding_model": False,
    "is_decoder": False,
    "tie_word_embeddings": True,
    "vocab_size": len(ALPHABET),
    "mask_token_id": MASK,
    "pad_token_id": PAD,
}
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def from_esm2(theirs: Mapping[str, Any], state: Mapping[str, Tensor]) -> LanguageModel:
    """Return a model with the weights, logits and contacts of an EsmForMaskedLM.

    Args:
        theirs: its EsmConfig as a dict, or its config.json.
        state: its weights: its `state_dict()`, or its model.safetensors.
    Raises:
        ValueError: for a configuration that is not ESM-2's, or weights that do not fit it.
    """
    model = LanguageModel(*esm2_config(theirs))
    load(model, state, esm2(model.config, "transformers", state))
    return model


def esm2_config(theirs: Mapping[str, Any]) -> tuple[TransformerConfig, PositionConfig]:
    """Return what builds a LanguageModel of the same shape.

    Their dropout of attention weights has no counterpart; ESM-2 was trained without.
    """
    theirs = DEFAULTS | dict(theirs)
    if missing := [name for name in SIZES if name not in theirs]:
        raise ValueError(f"this configures no ESM-2: {', '.join(missing)} is missing")
    wrong = [name for name, value in FIXED.items() if (theirs.get(name) or False) != value]  # None is False
    if wrong:
        has = ", ".join(f"{name}={theirs.get(name)!r}" for name in wrong)
        wanted = ", ".join(f"{name}={FIXED[name]!r}" for name in wrong)
        raise ValueError(f"{has} cannot be imported: that is not ESM-2, which has {wanted}")
    dim, depth, heads, hidden = (theirs[name] for name in SIZES)
    model = TransformerConfig(
        dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=hidden / dim,
        norm_eps=theirs["layer_norm_eps"],
        dropout=theirs["hidden_dropout_prob"],
    )
    return model, PositionConfig(PositionKind.rotary, base=theirs["rope_theta"])


def esm2(config: TransformerConfig, source: str, names: Collection[str] | None = None) -> Table:
    """Return the table of weight names.

    Args:
        config: of our model.
        source: "fair-esm" or "transformers".
        names: of the weights in a file, where they differ from the library's `state_dict()`: files of transformers
            leave out the tied decoder; older ones have the rotary frequencies once per block, and those of 5.23 call
            LayerNorm's parameters gamma and beta.
    Raises:
        ValueError: for another source.
    """
    if source not in LAYOUTS:
        raise ValueError(f"source={source!r} is not known; possible: {', '.join(LAYOUTS)}")
    theirs, blocks = LAYOUTS[source], range(config.depth)
    decoder = (theirs.decoder,) if names is None or theirs.decoder in names else ()
    found = [name for name in names or () if name.endswith("inv_freq")]
    frequency = found or dict.fromkeys(theirs.frequency.format(n=n) for n in blocks)
    renamed = any(name.endswith("LayerNorm.gamma") for name in names or ())
    table = [
        Row((theirs.embed, *decoder), "embed.weight", copies(1 + len(decoder))),
        Row(tuple(frequency), "transformer.position.frequency", copies(len(frequency))),
        Row(theirs.bias, "bias"),
        *(Unused(name) for name in theirs.unused),
    ]
    for ours, parts in theirs.layers.items():
        parts, how = ((parts,), SAME) if isinstance(parts, str) else (parts, stacked(*len(parts) * [config.dim]))
        kinds = ("gamma", "beta") if renamed and parts[0].endswith(".LayerNorm") else ("weight", "bias")
        for n in blocks if "{n}" in ours else (0,):
            table += [
                Row(tuple(f"{part.format(n=n)}.{their}" for part in parts), f"{ours.format(n=n)}.{our}", how)
                for their, our in zip(kinds, ("weight", "bias"), strict=True)
            ]
    return table


def copies(count: int) -> Transform:
    """Return the transform for `count` equal weights of theirs that ours has once.

    Raises:
        ValueError: if they differ.
    """

    def into(theirs):
        if not all(torch.equal(theirs[0], other) for other in theirs[1:]):
            raise ValueError("weights that are one in ESM-2 differ here: embedding and decoder, or a block's rotation")
        return theirs[:1]

    return Transform(into, lambda ours: ours * count)
