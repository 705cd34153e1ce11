"""The configuration of the core: plain dataclasses without torch, so that a command line loads them quickly."""

from dataclasses import dataclass
from enum import Enum


class Activation(Enum):
    gelu = "gelu"
    gelu_tanh = "gelu_tanh"  # GPT-2's approximation of it
    relu = "relu"
    relu2 = "relu2"
    swiglu = "swiglu"


class Norm(Enum):
    layer = "layer"
    rms = "rms"


class Mixer(Enum):
    softmax = "softmax"
    window = "window"
    linear = "linear"
    performer = "performer"
    delta = "delta"
    gated_delta = "gated_delta"
    convolution = "convolution"
    recurrence = "recurrence"


class PositionKind(Enum):
    none = "none"
    learned = "learned"
    sinusoidal = "sinusoidal"
    rotary = "rotary"
    axial = "axial"
    centred = "centred"
    mixed = "mixed"
    alibi = "alibi"
    relative = "relative"


GRID_KINDS = (PositionKind.axial, PositionKind.centred, PositionKind.mixed)  # these turn by rows and columns
ROTARY_KINDS = (PositionKind.rotary, *GRID_KINDS)


@dataclass
class TransformerConfig:
    """One Transformer. Widths are in features, `depth` in blocks, `dropout` a probability."""

    dim: int = 64  # width of a token, a multiple of `num_heads`
    depth: int = 2  # blocks
    num_heads: int = 4  # attentions side by side, each over its part of the width
    num_kv_heads: int | None = None  # grouped key/value heads; as many as `num_heads` if None
    mixer: Mixer = Mixer.softmax  # how tokens exchange information
    window: int = 64  # how many tokens to either side mixer=window sees
    mlp_ratio: float = 4.0  # hidden width of the feed-forward as a multiple of `dim`
    activation: Activation = Activation.gelu  # of the feed-forward
    norm: Norm = Norm.layer  # before each part of a block, and after the last
    norm_eps: float | None = None  # torch's own if None
    qk_norm: bool = False  # RMS-normalise queries and keys, per head
    linear_bias: bool = True  # in the linear layers
    dropout: float = 0.0  # on what a block adds to the residual stream; never on the attention weights
    drop_path: float = 0.0  # of leaving out a whole block for a sample, in the last block; rises linearly from 0
    zero_init: bool = False  # blocks start as the identity
    layer_scale: float | None = None  # the start of a trained scale on what a block adds, if it is to have one
    embed_norm: bool = False  # normalise tokens before the first block (decision transformer)


class ScalingKind(Enum):
    linear = "linear"
    llama3 = "llama3"
    yarn = "yarn"
    factors = "factors"


@dataclass
class RotaryScaling:
    """Rotary frequencies that are divided, for a longer context than a model was first trained on.

    The names are those of transformers (`rope_scaling`); llama.cpp's `rope_freqs` are the `factors`.
    """

    kind: ScalingKind = ScalingKind.linear
    factor: float = 1.0  # linear: divides all frequencies; llama3, yarn: the low ones
    original_context: int | None = None  # llama3, yarn: tokens of the context at first
    low_freq_factor: float = 1.0  # llama3: frequencies of fewer turns in that context are divided by all of `factor`
    high_freq_factor: float = 4.0  # llama3: those of more turns by 1
    beta_slow: float = 1.0  # yarn: the same as low_freq_factor
    beta_fast: float = 32.0  # yarn: the same as high_freq_factor
    truncate: bool = True  # yarn: the range between lies between whole numbers of pairs
    attention_factor: float = 1.0  # yarn, factors: queries and keys are multiplied by it
    factors: list[float] | None = None  # factors: what divides each frequency, D / 2 of them


@dataclass
class PositionConfig:
    """The position encoding."""

    kind: PositionKind = PositionKind.learned
    table: bool = False  # and a learned vector for each place, beside a rotation
    base: float = 10_000.0  # longest wavelength of sinusoidal and rotary positions, in units of 2π tokens
    scaling: RotaryScaling | None = None  # of kind=rotary, as models of others have it


HAS_ATTENTION_MAPS = (Mixer.softmax, Mixer.window)  # mixers that have attention maps, and so what a probe reads

# What each mixer can take: tokens that see the future ("full"), causality, padding, a bias on scores.
CAPABILITIES = {
    Mixer.softmax: {"full", "causal", "padding", "bias"},
    Mixer.window: {"full", "causal", "padding", "bias"},
    Mixer.linear: {"full", "causal", "padding"},
    Mixer.performer: {"full", "causal", "padding"},
    Mixer.delta: {"causal", "padding"},
    Mixer.gated_delta: {"causal", "padding"},
    Mixer.convolution: {"full", "causal", "padding"},
    Mixer.recurrence: {"full", "causal", "padding"},
}


def check_mixing(mixer: Mixer, position: PositionKind, needs: frozenset[str]) -> None:
    """Check that a mixer can do what a domain (`needs`) and its position encoding require.

    Raises:
        ValueError: if not, with the mixers that can.
    """
    needs = needs | {"bias"} if position in (PositionKind.alibi, PositionKind.relative) else needs
    if position is PositionKind.alibi and "causal" not in needs:
        raise ValueError("position=alibi is for causal attention, and here tokens see what follows them")
    missing = needs - CAPABILITIES[mixer]
    if missing:
        able = ", ".join(other.value for other, takes in CAPABILITIES.items() if needs <= takes)
        raise ValueError(f"model.mixer={mixer.value} cannot take {', '.join(sorted(missing))}; possible here: {able}")
