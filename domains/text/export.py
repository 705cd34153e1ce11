"""A language model as a folder of transformers.

export(adapter, position, Path("mine"))         # AutoModelForCausalLM.from_pretrained("mine") has its logits
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
    """Write config.json and model.safetensors; and for subwords tokenizer.json with its configuration.

    Low-rank changes are added to the matrices.

    Raises:
        ValueError: for a model that transformers has no like of; nothing is written then.
    """
    adapter, tokenizer = adapter.merged(), adapter.tokenizer
    spec = {"context": adapter.context, "vocabulary": adapter.vocabulary, "orders": list(adapter.orders)}
    theirs = their_config(adapter.config, position, spec)
    theirs["eos_token_id"] = tokenizer.end if tokenizer else None
    theirs["bos_token_id"] = tokenizer.first[0] if tokenizer and tokenizer.first else None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "config.json", folder / "model.safetensors"]
    paths[0].write_text(json.dumps(theirs, indent=2) + "\n", encoding="utf-8")
    state = export_state_dict(adapter, TABLES[theirs["model_type"]](adapter.config))
    save_file({name: weight.contiguous().cpu() for name, weight in state.items()}, paths[1], {"format": "pt"})
    if isinstance(tokenizer, Subwords):
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template}
        for role in ("bos_token", "eos_token"):
            number = theirs[f"{role}_id"]
            told[role] = None if number is None else tokenizer.pieces.id_to_token(number)
        paths += [folder / "tokenizer.json", folder / "tokenizer_config.json"]
        paths[2].write_text(tokenizer.definition, encoding="utf-8")
        paths[3].write_text(
            json.dumps({k: v for k, v in told.items() if v is not None}, indent=2) + "\n", encoding="utf-8"
        )
    return paths
