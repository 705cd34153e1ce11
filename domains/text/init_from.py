"""What a language model can begin with of another one's weights."""

from typing import Any

from torch import Tensor

from domains.text.adapter import Adapter

BY_BYTES = {"kind": "bytes"}  # where a spec, of version 0.1, does not say
OF_TOKENS = ("embed.", "next.", "recall.")


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of another run; without those of its tokens, where another tokenizer numbers them.

    Args:
        adapter: the model that shall start.
        state: the weights of the run.
        spec: of its data.
    Raises:
        ValueError: if a model that keeps its vectors of tokens as they are would have them from nowhere.
    """
    if not adapter.tokenizer or adapter.tokenizer.spec() != spec.get("tokenizer", BY_BYTES):
        state = {name: weight for name, weight in state.items() if not name.startswith(OF_TOKENS)}
    own = [
        name for name, weight in adapter.named_parameters() if name.startswith(OF_TOKENS) and not weight.requires_grad
    ]
    if lost := [name for name in own if name not in state or state[name].shape != adapter.get_parameter(name).shape]:
        raise ValueError(
            f"model.lora={adapter.config.lora} keeps {', '.join(lost)} as they are, and the run of init=… has none for "
            "these tokens; give data.tokenizer=file data.tokenizer_path=… of that run, and its data.recall"
        )
    return state
