"""What a language model can begin with of another one."""

import pytest
import torch

from core.config import PositionConfig, PositionKind
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.start import fitted
from domains.text.tokenizers import Characters

SPEC = {"context": 13, "vocabulary": 9, "orders": [], "memory": "", "tokenizer": Characters("abcdefgh\n").spec()}


def make(**settings) -> Adapter:
    torch.manual_seed(3)
    return Adapter(ModelConfig(dim=24, heads=3, **settings), PositionConfig(PositionKind.rotary), SPEC)


def test_another_tokenizer_numbers_tokens_otherwise():
    adapter, state = make(), make().state_dict()
    assert fitted(adapter, state, SPEC).keys() == state.keys()
    kept = fitted(adapter, state, SPEC | {"tokenizer": Characters("abcdefghi").spec()})
    assert {name.split(".")[0] for name in state.keys() - kept.keys()} == {"embed", "next"}


def test_a_low_rank_model_begins_as_the_one_it_changes():
    base, adapter = make(), make(lora=3)
    adapter.load_state_dict(fitted(adapter, base.state_dict(), SPEC), strict=False)
    tokens = torch.randint(9, (5, 13))
    torch.testing.assert_close(adapter({"tokens": tokens}), base({"tokens": tokens}))


def test_a_rank_that_cannot_be():
    with pytest.raises(ValueError, match=r"model\.lora=0 must be at least 1"):
        make(lora=0)
