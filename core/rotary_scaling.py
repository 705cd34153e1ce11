"""Divisors of the frequencies of a rotary position, for a longer context than a model was first trained on.

    θ_n = position · base^(-2n / D) / divisor_n,        n = 0 … D/2 - 1

The formulas are those of transformers (modeling_rope_utils.py), in float64. A frequency makes `turns` turns within the
original context; those of many turns stay as they are, those of few are divided by `factor`, and between the two a
share e of each frequency stays:

    1 / divisor = e + (1 - e) / factor

Shapes: D head width
"""

from math import ceil, floor, isfinite, log, pi

from core.config import RotaryScaling, ScalingKind


def frequency_divisors(scaling: RotaryScaling, head_dim: int, base: float) -> list[float]:
    """Return the divisors of the D / 2 frequencies.

    Raises:
        ValueError: for a scaling that cannot be.
    """
    check_scaling(scaling, head_dim)
    pairs = head_dim // 2
    match scaling.kind:
        case ScalingKind.linear:
            return [float(scaling.factor)] * pairs
        case ScalingKind.factors:
            assert scaling.factors is not None
            return [float(factor) for factor in scaling.factors]
        case ScalingKind.llama3:
            kept = llama3_shares(scaling, head_dim, base)
        case ScalingKind.yarn:
            kept = yarn_shares(scaling, head_dim, base)
    return [1 / (share + (1 - share) / scaling.factor) for share in kept]


def llama3_shares(scaling: RotaryScaling, head_dim: int, base: float) -> list[float]:
    """e = (turns - low) / (high - low), cut off at 0 and 1 (Llama 3.1: Grattafiori et al. 2024)."""
    assert scaling.original_context is not None
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = [scaling.original_context * base ** (-2 * n / head_dim) / (2 * pi) for n in range(head_dim // 2)]
    return [min(max((turn - low) / (high - low), 0.0), 1.0) for turn in turns]


def yarn_shares(scaling: RotaryScaling, head_dim: int, base: float) -> list[float]:
    """e falls along the pairs, from 1 where there are `beta_fast` turns to 0 where there are `beta_slow`.

    Source: YaRN (Peng et al. 2023, section 3.2).
    """
    assert scaling.original_context is not None
    context = scaling.original_context

    def pair(turns: float) -> float:
        """The pair n of which the frequency makes so many turns."""
        return head_dim * log(context / (turns * 2 * pi)) / (2 * log(base))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = floor(first), ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first if last != first else 0.001
    return [1 - min(max((n - first) / width, 0.0), 1.0) for n in range(head_dim // 2)]


def check_scaling(scaling: RotaryScaling, head_dim: int) -> None:
    """Raises ValueError for numbers that are not positive, a context that is not there, factors for another width."""
    kind, factors = scaling.kind.value, scaling.factors
    names = {"linear": (), "llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_slow", "beta_fast")}
    for name in ("factor", "attention_factor", *names.get(kind, ())):
        if not _positive(getattr(scaling, name)):
            raise ValueError(f"position.scaling.{name}={getattr(scaling, name)} must be a positive number")
    if scaling.kind is ScalingKind.factors:
        if factors is None or len(factors) != head_dim // 2 or not all(map(_positive, factors)):
            count = 0 if factors is None else len(factors)
            raise ValueError(
                f"position.scaling.factors are {count} numbers; heads of {head_dim} features need {head_dim // 2}, "
                "all positive"
            )
    elif factors is not None:
        raise ValueError(f"position.scaling.factors go with kind=factors, not with kind={kind}")
    if scaling.kind in (ScalingKind.llama3, ScalingKind.yarn):
        low, high = (getattr(scaling, name) for name in names[kind])
        if not low < high:
            raise ValueError(f"position.scaling.{names[kind][0]}={low} must be below {names[kind][1]}={high}")
        if scaling.original_context is None or scaling.original_context < 1:
            raise ValueError(f"position.scaling.kind={kind} needs original_context, the tokens of the context at first")


def _positive(number: float) -> bool:
    return isfinite(number) and number > 0
