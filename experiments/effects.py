"""Effects of a change of one setting: differences paired by seed, their intervals, and their costs.

Shapes: S seeds
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap, t

CONFIDENCE = 0.95
SIZE_TOLERANCE = 0.1  # relative difference of parameter counts above which two values are reported as of other size


class Effect(NamedTuple):
    """The difference between a value of the factor and the first one, in one domain; positive is better."""

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
    """Return the mean difference between runs of the same seed, with its interval.

        d = ± (other - base);   interval: quantiles of the means of S draws from d, with replacement

    From few seeds the bootstrap interval is too narrow: with three it spans the smallest to the largest difference, and
    covers the true mean in 3 of 4 cases. So an effect counts as sure only if Student's interval excludes 0 as well.

    Args:
        base, other: (S,), of the same seeds in the same order.
    Returns:
        An Effect; nan where a single seed leaves an interval or a deviation unknown.
    """
    d = (np.asarray(other, float) - np.asarray(base, float)) * (-1 if lower_is_better else 1)  # (S,)
    mean, deviation, size = (
        float(d.mean()),
        float(np.std(base, ddof=1)) if len(d) > 1 else np.nan,
        abs(np.mean(base)),
    )
    low = high = np.nan
    sure = False
    if len(d) > 1 and np.ptp(d) > 0:
        finished = bootstrap((d,), np.mean, confidence_level=CONFIDENCE, method="percentile", n_resamples=9999, rng=0)
        low, high = map(float, finished.confidence_interval)
        student = t.ppf((1 + CONFIDENCE) / 2, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5
        sure = low * high > 0 and abs(mean) > student
    elif len(d) > 1:
        low = high = mean  # all differences alike, as between two names of one thing
    percent, percent_low, percent_high = (float(100 * x / size) if size else np.nan for x in (mean, low, high))
    deviations = mean / deviation if deviation else np.nan
    return Effect(len(d), mean, low, high, percent, percent_low, percent_high, deviations, bool(sure))


def summarise(rows: Sequence[dict[str, Any]], values: Sequence[str], domains: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each domain and value: scores over seeds, the effect against the first value, and the costs.

    Args:
        rows: one for each run, as in results.csv; a run that failed has no score.
    """
    lines = []
    for domain in domains:
        base = _finished(rows, domain, values[0])
        for value in values:
            finished = _finished(rows, domain, value)
            line: dict[str, Any] = {"domain": domain, "value": value, "seeds": len(finished)}
            if finished:
                first = next(iter(finished.values()))
                scores = [row["score"] for row in finished.values()]
                line |= {"metric": first["metric"], "lower_is_better": first["lower_is_better"]}
                line |= {"mean": float(np.mean(scores)), "deviation": _standard_deviation(scores)}
                line |= {name: float(np.mean([row[name] for row in finished.values()])) for name in COSTS}
                shared_seeds = sorted(base.keys() & finished.keys())
                if value != values[0] and shared_seeds:
                    base_scores, other_scores = (
                        [part[seed]["score"] for seed in shared_seeds] for part in (base, finished)
                    )
                    line |= effect(base_scores, other_scores, first["lower_is_better"])._asdict()
                    ratio = line["parameters"] / np.mean([row["parameters"] for row in base.values()])
                    line["other_size"] = bool(abs(ratio - 1) > SIZE_TOLERANCE)
            lines.append(line)
    return lines


def format_size(line: dict[str, Any]) -> str:
    """Format the size of an effect without its sign: in percent, or in the metric's unit if the first value is 0."""
    return f"{abs(line['change']):.3g}" if math.isnan(line["percent"]) else f"{abs(line['percent']):.1f} %"


def format_effect(line: dict[str, Any]) -> tuple[str, str]:
    """Format an effect and its interval in percent of the first value's mean, or in the metric's unit if that is 0.

    A single seed has no interval; a NaN score, as of a run that diverged, has neither.
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


def _standard_deviation(scores: Sequence[float]) -> float:
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else np.nan
