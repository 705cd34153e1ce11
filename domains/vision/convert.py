"""Conversion of timm's vision transformers to our adapter, with the same logits, and back.

    adapter = from_timm(timm.create_model("deit3_small_patch16_224", checkpoint_path=...))
    theirs.load_state_dict(unload(adapter, timm_table(theirs)))

Plain ViTs with class token and registers, DeiT-III, DINOv2, DINOv3, CLIP's and EVA-02's image towers, and rotary ViTs.

Shapes: P class token and registers · C width · D head width
"""

from typing import Any

import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed
from torch import Tensor, nn

from core.config import Activation, PositionConfig, PositionKind
from core.convert import SAME, Row, Table, Transform, absent, load, reordered, shaped
from domains.vision.adapter import Adapter
from domains.vision.config import ModelConfig, Pool

ACTIVATIONS = {"GELU": Activation.gelu, "GELUTanh": Activation.gelu_tanh, "ReLU": Activation.relu}


def from_timm(theirs: Any, classes: list[str] | None = None) -> Adapter:
    """Return an adapter with the weights and the logits of a timm model.

    Args:
        theirs: a `VisionTransformer` or `Eva` of timm.
        classes: names of its outputs; their numbers if None.
    Raises:
        ValueError: for a model with parts that an adapter lacks; it names them.
    """
    model, position = timm_config(theirs)
    spec = {
        "classes": classes or [str(n) for n in range(theirs.num_classes)],
        "channels": theirs.patch_embed.proj.in_channels,
        "size": list(theirs.patch_embed.img_size),
        "mean": list(theirs.pretrained_cfg["mean"]),
        "std": list(theirs.pretrained_cfg["std"]),
    }
    adapter = Adapter(model, position, spec)
    load(adapter, theirs.state_dict(), timm_table(theirs))
    return adapter


def timm_config(theirs: Any) -> tuple[ModelConfig, PositionConfig]:
    """Return the configuration of an adapter of the same shape."""
    if not hasattr(theirs, "blocks") or not hasattr(theirs, "patch_embed"):
        raise ValueError(
            f"{type(theirs).__name__} is no plain vision transformer; possible: timm's ViT and Eva families"
        )
    block, pool = theirs.blocks[0], theirs.global_pool
    pools = {
        "token": Pool.token,
        "map": Pool.attention,
        "avg": Pool.mean if isinstance(theirs.fc_norm, nn.Identity) else Pool.mean_then_norm,
    }
    if pool not in pools:
        raise ValueError(f"pooling {pool!r} cannot be imported; possible: {', '.join(pools)}")
    gated = type(block.mlp).__name__ == "GluMlp"
    activation = type(block.mlp.act).__name__
    if not gated and activation not in ACTIVATIONS:
        raise ValueError(
            f"activation {activation} cannot be imported; possible: {', '.join(ACTIVATIONS)}, GluMlp with SiLU"
        )
    hidden = block.mlp.fc1.out_features // (2 if gated else 1)
    scaled = any(name.startswith(("ls1.", "gamma_1")) for name, _ in block.named_parameters())
    model = ModelConfig(
        dim=theirs.embed_dim,
        depth=len(theirs.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=hidden / theirs.embed_dim,
        activation=Activation.swiglu if gated else ACTIVATIONS[activation],
        norm_eps=block.norm1.eps,
        layer_scale=1e-5 if scaled else None,
        embed_norm=not isinstance(theirs.norm_pre, nn.Identity),
        patch_size=theirs.patch_embed.patch_size[0],
        pool=pools[pool],
        class_token=theirs.cls_token is not None,
        reg_tokens=0 if theirs.reg_token is None else theirs.reg_token.shape[1],
    )
    return model, _position(theirs)


def timm_table(theirs: Any) -> Table:
    """Return the table of names for this model."""
    state, rope = theirs.state_dict(), getattr(theirs, "rope", None)
    C, learned = theirs.embed_dim, theirs.pos_embed is not None
    table = [
        *_weight_and_bias("patch_embed.proj", "patch_embed", state),
        *_weight_and_bias("head", "classifier", state),
        *_weight_and_bias("norm_pre", "transformer.embed_norm", state),
        *_weight_and_bias("norm", "transformer.norm", state),
        *_weight_and_bias("fc_norm", "fc_norm", state),
        *_attn_pool_rows(state),
        Row(*_prefix_row(theirs, rope)),
    ]
    if isinstance(rope, RotaryEmbeddingMixed):
        order = torch.tensor([1, 0] if rope.grid_indexing == "xy" else [0, 1])
        ours = f"transformer.position.{'other.' if learned else ''}frequency"
        table.append(Row("rope.freqs", ours, reordered(order)))
    turned = reordered(_qkv_order(theirs, rope))
    for n in range(len(theirs.blocks)):
        a, b = f"blocks.{n}", f"transformer.blocks.{n}"
        qkv = f"{b}.mixer.qkv"
        table += [
            *_weight_and_bias(f"{a}.norm1", f"{b}.norm1", state),
            *_weight_and_bias(f"{a}.norm2", f"{b}.norm2", state),
            *_weight_and_bias(f"{a}.attn.proj", f"{b}.mixer.out", state),
            *_weight_and_bias(f"{a}.mlp.fc1", f"{b}.feed_forward.up", state),
            *_weight_and_bias(f"{a}.mlp.fc2", f"{b}.feed_forward.out", state),
            Row(f"{a}.attn.qkv.weight", f"{qkv}.weight", turned),
        ]
        if f"{a}.attn.qkv.bias" in state:
            table.append(Row(f"{a}.attn.qkv.bias", f"{qkv}.bias", turned))
        elif f"{a}.attn.q_bias" in state:  # EVA's keys have none
            table.append(
                Row((f"{a}.attn.q_bias", f"{a}.attn.v_bias"), f"{qkv}.bias", _without_key_bias(C).then(turned))
            )
        else:
            table.append(Row((), f"{qkv}.bias", absent(3 * C)))
        for side in "12":
            for gain in (f"{a}.ls{side}.gamma", f"{a}.gamma_{side}"):
                if gain in state:
                    table.append(Row(gain, f"{b}.scale{side}.gain"))
    return table


def _attn_pool_rows(state: dict[str, Tensor]) -> list[Row]:
    """Return the rows of attention pooling, if the model has it."""
    if "attn_pool.latent" not in state:
        return []
    names = {
        "q": "q",
        "kv": "kv",
        "proj": "out",
        "norm": "norm",
        "mlp.fc1": "feed_forward.up",
        "mlp.fc2": "feed_forward.out",
    }
    width = state["attn_pool.latent"].shape[-1]
    rows = [Row("attn_pool.latent", "attn_pool.query", shaped((1, 1, width), (1, width)))]
    return rows + [row for a, b in names.items() for row in _weight_and_bias(f"attn_pool.{a}", f"attn_pool.{b}", state)]


def _weight_and_bias(theirs: str, ours: str, state: dict[str, Tensor]) -> list[Row]:
    """Return the rows of a layer's weight and bias, if it exists; a missing bias of theirs is 0."""
    if f"{theirs}.weight" not in state:
        return []
    weight = state[f"{theirs}.weight"]
    bias = (f"{theirs}.bias", SAME) if f"{theirs}.bias" in state else ((), absent(len(weight)))
    return [Row(f"{theirs}.weight", f"{ours}.weight"), Row(bias[0], f"{ours}.bias", bias[1])]


def _prefix_row(theirs: Any, rope: Any) -> tuple[tuple[str, ...], tuple[str, ...], Transform]:
    """Return the row of the prefix tokens and of the learned positions; theirs may have positions for prefix tokens,
    too.

    Ours have none, so the positions of theirs are added to the tokens.
    """
    counts = {
        name: getattr(theirs, name).shape[1] for name in ("cls_token", "reg_token") if getattr(theirs, name) is not None
    }
    P, learned = sum(counts.values()), theirs.pos_embed is not None
    num_positions = P if learned and not theirs.no_embed_class else 0

    def forward(tensors):
        positions = tensors[-1][0] if learned else None  # (num_positions + patches, C)
        tokens = [t[0] for t in tensors[: len(counts)]]
        first = [torch.cat(tokens)] if P else []  # (P, C)
        if positions is None:
            return first
        return [*(t + positions[:num_positions] if num_positions else t for t in first), positions[num_positions:]]

    def inverse(tensors):
        tokens = [t[None] for t in tensors[0].split(list(counts.values()))] if P else []
        if learned:
            positions = tensors[-1]
            tokens.append(torch.cat([positions.new_zeros(num_positions, positions.shape[1]), positions])[None])
        return tokens

    names = (*counts, "pos_embed") if learned else tuple(counts)
    ours = (("prefix_tokens",) if P else ()) + (
        (f"transformer.position.{'table.' if rope else ''}table",) if learned else ()
    )
    return names, ours, Transform(forward, inverse)


def _without_key_bias(dim: int) -> Transform:
    """Return the biases of queries and values; keys need none: softmax ignores what all keys of a query share."""

    def inverse(ours):
        q, _, v = ours[0].split(dim)
        return [q, v]

    return Transform(lambda theirs: [torch.cat([theirs[0], torch.zeros(dim), theirs[1]])], inverse)


def _qkv_order(theirs: Any, rope: Any) -> Tensor:
    """Return the order of their rows of queries, keys and values.

    Ours rotate features (d, d + D/2), the first half of them by the row; theirs rotate (2d, 2d + 1) and, if they count
    x before y, the first half by the column.
    """
    C, H = theirs.embed_dim, theirs.blocks[0].attn.num_heads
    D, order = C // H, torch.arange(3 * C)
    if rope is None:
        return order
    pair, member = torch.arange(D) % (D // 2), torch.arange(D) // (D // 2)
    if rope.grid_indexing == "xy" and not isinstance(rope, RotaryEmbeddingMixed):
        pair = (pair + D // 4) % (D // 2)
    row = pair + member * (D // 2) if getattr(rope, "rotate_half", False) else 2 * pair + member
    heads = torch.arange(2 * H)[:, None] * D  # of queries and keys
    return torch.cat([(heads + row).flatten(), order[2 * C :]])


def _position(theirs: Any) -> PositionConfig:
    rope, table = getattr(theirs, "rope", None), theirs.pos_embed is not None
    grid = tuple(theirs.patch_embed.grid_size)
    match rope:
        case None:
            return PositionConfig(PositionKind.learned if table else PositionKind.none)
        case RotaryEmbeddingCat() if rope.grid_offset == 0 and tuple(rope.ref_feat_shape or grid) == grid:
            kind = PositionKind.axial
        case RotaryEmbeddingDinoV3():
            kind = PositionKind.centred
        case RotaryEmbeddingMixed():
            kind = PositionKind.mixed
        case _:
            raise ValueError(
                f"{type(rope).__name__} as it is set up here cannot be imported; "
                "possible: axial rotary in whole patches, DINOv3's, mixed"
            )
    if rope.temperature is None:
        raise ValueError("a rotary position without a temperature cannot be imported")
    return PositionConfig(kind, table=table, base=float(rope.temperature))
