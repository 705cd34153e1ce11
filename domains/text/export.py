"""A language model as a folder of transformers.

export(adapter, position, Path("mine"))         # AutoModelForCausalLM.from_pretrained("mine") has the same logits
"""

import json
from pathlib import Path

from safetensors.torch import save_file

from core.config import PositionConfig
from core.convert import export_state_dict
from domains.text.adapter import Adapter
from domains.text.convert import TABLES, their_config
from domains.text.tokenizers import Subwords


def export(adapter: Adapter, position: PositionConfig, folder: Path) -> list[Path]:
    """Write config.json and model.safetensors; for subwords also tokenizer.json with its configuration.

    Low-rank adapters are merged into the weights.

    Raises:
        ValueError: for a model that transformers has no counterpart of; nothing is written then.
    """
    adapter, tokenizer = adapter.merged(), adapter.tokenizer
    spec = {"context": adapter.context, "vocab_size": adapter.vocab_size, "ngram_orders": list(adapter.ngram_orders)}
    theirs = their_config(adapter.config, position, spec)
    theirs["eos_token_id"] = tokenizer.eos_token_id if tokenizer else None
    theirs["bos_token_id"] = tokenizer.prompt_prefix[0] if tokenizer and tokenizer.prompt_prefix else None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "config.json", folder / "model.safetensors"]
    paths[0].write_text(json.dumps(theirs, indent=2) + "\n", encoding="utf-8")
    state = export_state_dict(adapter, TABLES[theirs["model_type"]](adapter.config))
    save_file({name: weight.contiguous().cpu() for name, weight in state.items()}, paths[1], {"format": "pt"})
    if isinstance(tokenizer, Subwords):
        tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template}
        for role in ("bos_token", "eos_token"):
            token_id = theirs[f"{role}_id"]
            tokenizer_config[role] = None if token_id is None else tokenizer.backend.id_to_token(token_id)
        paths += [folder / "tokenizer.json", folder / "tokenizer_config.json"]
        paths[2].write_text(tokenizer.definition, encoding="utf-8")
        paths[3].write_text(
            json.dumps({k: v for k, v in tokenizer_config.items() if v is not None}, indent=2) + "\n", encoding="utf-8"
        )
    return paths
