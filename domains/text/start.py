"""What a language model can begin with of another one's weights."""

from typing import Any

from torch import Tensor

from domains.text.adapter import Adapter

BYTES = {"kind": "bytes"}  # where a spec, of version 0.1, does not say
OF_TOKENS = ("embed.", "next.", "recall.")


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of another run; without those of its tokens, where another tokenizer numbers them.

    Args:
        adapter: the model that shall start.
        state: the weights of the run.
        spec: of its data.
    """
    if adapter.tokenizer and adapter.tokenizer.spec() == spec.get("tokenizer", BYTES):
        return state
    return {name: weight for name, weight in state.items() if not name.startswith(OF_TOKENS)}
