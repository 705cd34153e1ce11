"""What a map says, against values worked out by hand. (Rollout: tests/domains/test_vision_evaluate.py.)"""

from math import log

import pytest
import torch

from core.maps import received, statistics

# Three tokens that see themselves and what was before.
CAUSAL = torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 4, 1 / 4, 1 / 2]])
SEEN = torch.ones(3, 3, dtype=torch.bool).tril()


def test_statistics_by_hand():
    found = {name: value.item() for name, value in statistics(CAUSAL, SEEN).items()}
    assert found["entropy"] == pytest.approx((0 + log(2) + 1.5 * log(2)) / 3)
    assert found["spread"] == pytest.approx((1 + 1.5 * log(2) / log(3)) / 2)  # the first token has no choice
    assert found["distance"] == pytest.approx((0 + 1 / 2 + 2 / 4 + 1 / 4) / 3)
    assert found["first"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_effective_rank_counts_directions():
    everything = torch.ones(5, 5, dtype=torch.bool)
    maps = torch.stack([torch.eye(5), torch.full((5, 5), 1 / 5), torch.eye(5)[[0, 0, 0, 0, 1]]])
    found = statistics(maps, everything)
    share = 2 / (2 + 1)  # singular values of the last: √4 and √1
    by_hand = torch.tensor([5, 1, 1 / (share**share * (1 - share) ** (1 - share))])
    torch.testing.assert_close(found["rank"], by_hand)
    torch.testing.assert_close(found["spread"], torch.tensor([0.0, 1.0, 0.0]))


def test_a_key_gets_what_others_give():
    torch.testing.assert_close(received(CAUSAL), torch.tensor([3 / 4, 1 / 4, 0]) / 2)


def test_one_token_has_nothing_to_attend_to():
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        statistics(torch.ones(7, 1, 1), torch.ones(1, 1, dtype=torch.bool))
