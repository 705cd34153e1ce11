"""What a mixer cannot take is refused before anything is built."""

import pytest

from core.config import CAPABILITIES, Mixer, PositionKind, check_mixing


def test_every_mixer_says_what_it_takes():
    assert CAPABILITIES.keys() == {*Mixer}


@pytest.mark.parametrize(
    ("mixer", "position", "needs", "told"),
    [
        (Mixer.delta, PositionKind.rotary, {"full"}, "delta cannot take full; possible here: softmax, window, linear"),
        (Mixer.linear, PositionKind.relative, {"full"}, "linear cannot take bias; possible here: softmax, window$"),
        (Mixer.softmax, PositionKind.alibi, {"full"}, "alibi is for causal attention"),
    ],
)
def test_what_does_not_go_together_is_named(mixer, position, needs, told):
    with pytest.raises(ValueError, match=told):
        check_mixing(mixer, position, frozenset(needs))


def test_what_goes_together_is_let_through():
    check_mixing(Mixer.delta, PositionKind.rotary, frozenset({"causal", "padding"}))
    check_mixing(Mixer.softmax, PositionKind.alibi, frozenset({"causal"}))
