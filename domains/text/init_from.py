"""The weights of another run that a language model can begin with."""

from typing import Any

from torch import Tensor

from domains.text.adapter import Adapter

BYTES_SPEC = {"kind": "bytes"}  # specs of version 0.1 do not say
VOCABULARY_WEIGHTS = ("embed.", "lm_head.", "ngram_embed.")


def fitted(adapter: Adapter, state: dict[str, Tensor], spec: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of another run, without those that belong to its tokens if the tokenizers differ.

    Args:
        adapter: the model to initialise.
        state: the weights of the run.
        spec: of its data.
    Raises:
        ValueError: if a model with frozen embeddings would get them from nowhere.
    """
    if not adapter.tokenizer or adapter.tokenizer.spec() != spec.get("tokenizer", BYTES_SPEC):
        state = {name: weight for name, weight in state.items() if not name.startswith(VOCABULARY_WEIGHTS)}
    own = [
        name
        for name, weight in adapter.named_parameters()
        if name.startswith(VOCABULARY_WEIGHTS) and not weight.requires_grad
    ]
    if lost := [name for name in own if name not in state or state[name].shape != adapter.get_parameter(name).shape]:
        raise ValueError(
            f"model.lora_rank={adapter.config.lora_rank} keeps {', '.join(lost)} as they are, and the run of init=… "
            "has none for these tokens; give data.tokenizer=file data.tokenizer_path=… of that run, and its "
            "data.ngram_lookup"
        )
    return state
