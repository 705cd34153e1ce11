"""Settings of a tokenizer beside its vocabulary: how a prompt begins and ends, and how a conversation is written.

The post-processor of tokenizer.json, tokenizer_config.json, and chat_template.jinja, as transformers reads them.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any


def prompt_tokens(post: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the tokens that a post-processor puts before and behind a text."""
    match post.get("type"):
        case "TemplateProcessing":
            texts = [n for n, piece in enumerate(post["single"]) if "Sequence" in piece]
            ids = [
                post["special_tokens"][p["SpecialToken"]["id"]]["ids"] if "SpecialToken" in p else []
                for p in post["single"]
            ]
            return [*chain(*ids[: texts[0]])], [*chain(*ids[texts[-1] :])]
        case "BertProcessing" | "RobertaProcessing":
            return [post["cls"][1]], [post["sep"][1]]
        case "Sequence":
            frames = [prompt_tokens(one) for one in post["processors"]]
            return [*chain(*(first for first, _ in reversed(frames)))], [*chain(*(last for _, last in frames))]
    return [], []


def template_processing(first: Sequence[int], last: Sequence[int], names: Mapping[int, str]) -> dict[str, Any]:
    """Return the post-processor that puts these tokens before and behind a text."""
    before, after = ([{"SpecialToken": {"id": names[t], "type_id": 0}} for t in tokens] for tokens in (first, last))
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [*before, a, *after],
        "pair": [*before, a, b, *after],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]} for token, name in names.items()},
    }


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, {} if there is none. Raise ValueError for invalid JSON."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no settings")
    return config


def token_text(token: Any) -> str | None:
    """Return the spelling of a token in tokenizer_config.json, alone or among its properties."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def read_chat_template(config: dict[str, Any], folder: Path) -> str | None:
    """Return chat_template.jinja, or the template of tokenizer_config.json: the only one, or the default of several."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [one.get("template") for one in template if isinstance(one, dict) and one.get("name") == "default"]
        template = named[0] if named else None
    return template if isinstance(template, str) else None
