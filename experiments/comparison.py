"""What a change of one setting does, as figures: effects paired by seed, with intervals, and what they cost.

Shapes: S seeds
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap, t

LEVEL = 0.95
ALIKE = 0.1  # by how much, in parts, the parameters of two values may differ without a word


class Effect(NamedTuple):
    """A value of the factor beside the first one, in one domain. What is positive is an improvement."""

    paired: int  # seeds that both have finished
    change: float  # mean of the differences, in the metric's unit
    low: float
    high: float  # the interval of that mean, at LEVEL
    percent: float  # of the first value's mean
    percent_low: float
    percent_high: float
    deviations: float  # of the first value between seeds
    sure: bool  # whether interval and Student's interval exclude 0


def effect(base: Sequence[float], other: Sequence[float], lower_is_better: bool) -> Effect:
    """Differences between runs of the same seed, and how sure their mean is.

        d = ± (other - base);   interval: quantiles of the means of S draws from d, with replacement

    From few seeds such an interval is too narrow: of three it runs from the least difference to the largest, and holds
    the truth in 3 of 4 cases. So an effect is only called sure if Student's interval of the mean excludes 0, too.

    Args:
        base, other: (S,), of the same seeds in the same order.
    Returns:
        An Effect; nan where a single seed leaves an interval or a deviation unknown.
    """
    d = (np.asarray(other, float) - np.asarray(base, float)) * (-1 if lower_is_better else 1)  # (S,)
    mean, spread, size = float(d.mean()), float(np.std(base, ddof=1)) if len(d) > 1 else np.nan, abs(np.mean(base))
    low = high = np.nan
    sure = False
    if len(d) > 1 and np.ptp(d) > 0:
        found = bootstrap((d,), np.mean, confidence_level=LEVEL, method="percentile", n_resamples=9999, rng=0)
        low, high = map(float, found.confidence_interval)
        student = t.ppf((1 + LEVEL) / 2, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
        sure = low * high > 0 and abs(mean) > student
    elif len(d) > 1:
        low = high = mean  # all differences alike, as between two names of one thing
    percent, percent_low, percent_high = (float(100 * x / size) if size else np.nan for x in (mean, low, high))
    deviations = mean / spread if spread else np.nan
    return Effect(len(d), mean, low, high, percent, percent_low, percent_high, deviations, bool(sure))


def summarise(rows: Sequence[dict[str, Any]], values: Sequence[str], domains: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each domain and value: scores over seeds, the effect beside the first value, and the costs.

    Args:
        rows: one for each run, as results.csv has them; those with an error have no score.
    """
    lines = []
    for domain in domains:
        base = _finished(rows, domain, values[0])
        for value in values:
            found = _finished(rows, domain, value)
            line: dict[str, Any] = {"domain": domain, "value": value, "seeds": len(found)}
            if found:
                first = next(iter(found.values()))
                scores = [row["score"] for row in found.values()]
                line |= {"metric": first["metric"], "lower_is_better": first["lower_is_better"]}
                line |= {"mean": float(np.mean(scores)), "deviation": _deviation(scores)}
                line |= {name: float(np.mean([row[name] for row in found.values()])) for name in COSTS}
                both = sorted(base.keys() & found.keys())
                if value != values[0] and both:
                    ours, theirs = ([part[seed]["score"] for seed in both] for part in (base, found))
                    line |= effect(ours, theirs, first["lower_is_better"])._asdict()
                    ratio = line["parameters"] / np.mean([row["parameters"] for row in base.values()])
                    line["other_size"] = bool(abs(ratio - 1) > ALIKE)
            lines.append(line)
    return lines


def size(line: dict[str, Any]) -> str:
    """How large an effect is, without its sign: in percent, or in the metric's unit where the first value has 0."""
    return f"{abs(line['change']):.3g}" if math.isnan(line["percent"]) else f"{abs(line['percent']):.1f} %"


def told(line: dict[str, Any]) -> tuple[str, str]:
    """An effect and its interval in percent of the first value's mean, or, where that is 0, in the metric's unit.

    A single seed has no interval; a score that is no number, as of a run that diverged, has neither.
    """
    if math.isnan(line["change"]):
        return "no number", ""
    zero = math.isnan(line["percent"])
    names, form = (("change", "low", "high"), "+.3g") if zero else (("percent", "percent_low", "percent_high"), "+.1f")
    change, low, high = (f"{line[name]:{form}}" for name in names)
    return f"{change} from 0" if zero else f"{change} %", "" if math.isnan(line["low"]) else f"{low} … {high}"


COSTS = ("steps", "parameters", "flops", "seconds", "peak_memory", "tokens_per_second")


def _finished(rows: Sequence[dict[str, Any]], domain: str, value: str) -> dict[int, dict[str, Any]]:
    return {r["seed"]: r for r in rows if (r["domain"], r["value"]) == (domain, value) and r.get("score") is not None}


def _deviation(scores: Sequence[float]) -> float:
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else np.nan
