"""Effects, against numbers by hand."""

import math

import pytest

from experiments.effects import effect, format_size, summarise


def test_effect_by_hand():
    """Three seeds: the interval of a mean of draws with replacement runs from the least difference to the largest."""
    found = effect([10.0, 12.0, 14.0], [11.0, 13.0, 17.0], lower_is_better=False)
    assert found.paired == 3
    assert found.change == pytest.approx(5 / 3)
    assert (found.low, found.high) == (1.0, 3.0)
    assert found.percent == pytest.approx(100 * (5 / 3) / 12)
    assert found.deviations == pytest.approx((5 / 3) / 2)
    assert not found.sure  # Student's interval is 5/3 ± 2.87: all three are better, and that is not enough


def test_lower_is_better_turns_signs_alone():
    up = effect([1.0, 2.0, 4.0], [2.0, 3.5, 4.5], False)
    down = effect([1.0, 2.0, 4.0], [2.0, 3.5, 4.5], True)
    assert (down.change, down.percent, down.deviations) == (-up.change, -up.percent, -up.deviations)
    assert (down.low, down.high) == (-up.high, -up.low)


def test_a_large_effect_over_many_seeds_is_sure():
    base = [0.50, 0.52, 0.49, 0.51, 0.53]
    assert effect(base, [x + 0.2 + 0.01 * n for n, x in enumerate(base)], False).sure
    assert not effect(base, [x + (-1) ** n * 0.2 for n, x in enumerate(base)], False).sure


def test_one_seed_has_no_interval():
    found = effect([3.0], [4.0], False)
    assert found.change == 1.0
    assert math.isnan(found.low)
    assert math.isnan(found.deviations)
    assert not found.sure


def test_equal_runs_differ_by_nothing():
    found = effect([1.0, 2.0], [1.0, 2.0], False)
    assert (found.change, found.low, found.high, found.sure) == (0.0, 0.0, 0.0, False)


def test_an_effect_on_nothing_is_told_in_the_metrics_unit():
    assert format_size(effect([0.0, 0.0], [0.25, 0.25], True)._asdict()) == "0.25"
    assert format_size(effect([2.0, 2.0], [1.5, 1.5], False)._asdict()) == "25.0 %"


def run(domain, value, seed, score=None, parameters=100):
    costs = {"steps": 7, "flops": 1e9, "seconds": 2.0, "peak_memory": 11, "tokens_per_second": 13.0}
    row = {"domain": domain, "value": value, "seed": seed, "parameters": parameters, **costs}
    return row | ({"error": "no"} if score is None else {"score": score, "metric": "m", "lower_is_better": False})


def test_only_seeds_that_both_finished_are_paired():
    rows = [run("a", "x", 0, 1.0), run("a", "x", 1, 2.0), run("a", "x", 2)]
    rows += [run("a", "y", 0), run("a", "y", 1, 5.0, 120), run("a", "y", 2, 9.0, 120)]
    base, other = summarise(rows, ["x", "y"], ["a"])
    assert (base["seeds"], base["mean"]) == (2, 1.5)
    assert (other["seeds"], other["mean"], other["paired"], other["change"]) == (2, 7.0, 1, 3.0)
    assert other["other_size"]


def test_a_value_that_never_finished_is_a_line():
    lines = summarise([run("a", "x", 0, 1.0), run("a", "y", 0)], ["x", "y"], ["a", "b"])
    assert [(line["domain"], line["value"], line["seeds"]) for line in lines] == [
        ("a", "x", 1), ("a", "y", 0), ("b", "x", 0), ("b", "y", 0),
    ]  # fmt: skip
