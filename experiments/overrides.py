"""Overrides (key=value) as they were typed, and their translation to Hydra's grammar.

A text setting takes its value literally: prompt=1984, run=2024_01_17, input=${x}. Hydra's grammar would read two
numbers and an interpolation. All other values are in Hydra's grammar.
"""

import re
from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

KEY = re.compile(r"[\w.@/]+")
ELEMENT = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*?)\s*(?:,|$)""", re.DOTALL)


def to_hydra(override: str, config: DictConfig, sweep: bool = False) -> str:
    """Translate key=value to Hydra's grammar, so that a text setting gets its value literally.

    A list of texts is written [one,two]; an element with commas or outer blanks needs quotes. A single text is a list
    of one. `null` means None for an optional setting. In a sweep, commas separate the values of a text.

    Args:
        override: as it was typed.
        config: gives the types of all settings.
        sweep: whether the override belongs to `attend train -m`.
    """
    key, equals, value = override.partition("=")
    if not equals or not KEY.fullmatch(key):
        return override
    declared = declared_type(config, key)
    if value == "null" and NoneType in get_args(declared):
        return override
    if _has_type(declared, str):
        choices = [choice.strip() for choice in value.split(",")] if sweep else [value]
        if sweep and (value.startswith(("'", '"')) or re.fullmatch(r"(choice|glob|tag|shuffle|sort)\(.*\)", value)):
            return override  # Hydra's grammar has quotes for a text with commas, and functions for a sweep
        return f"{key}={','.join(map(quote, choices))}"
    if _has_type(declared, list[str]):
        return f"{key}={quote_list(parse_list(value))}"
    return override if _parses(override) or value.startswith(("[", "{")) else f"{key}={quote(value)}"


def from_hydra(override: str) -> str:
    """Undo `to_hydra` for text settings."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return override
    value = parsed._value
    if isinstance(value, QuotedString):
        return f"{parsed.key_or_group}={unescape(value.text)}"
    if isinstance(value, list) and value and all(isinstance(element, QuotedString) for element in value):
        texts = [unescape(element.text) for element in value]  # pyright: ignore[reportAttributeAccessIssue]
        return f"{parsed.key_or_group}=[{','.join(_quote_element(text) for text in texts)}]"
    return override


def declared_type(config: DictConfig, key: str) -> Any:
    """Return the declared type of a key in the dataclass behind a configuration; None for an unknown key."""
    parent, _, name = key.rpartition(".")
    if not re.fullmatch(r"[\w.]+", key):
        return None  # a choice, such as data@data.vision=digits
    node = OmegaConf.select(config, parent) if parent else config
    declared = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    return get_type_hints(declared).get(name) if isinstance(declared, type) and declared is not dict else None


def _has_type(declared: Any, expected: Any) -> bool:
    """Return whether a declared type is the expected one, optional or not."""
    parts = (
        [part for part in get_args(declared) if part is not NoneType]
        if get_origin(declared) is not list
        else [declared]
    )
    return declared == expected or parts == [expected]


def parse_list(value: str) -> list[str]:
    """Parse a list of texts: `[one, two]` gives "one" and "two"; any other text is a list of itself."""
    if not _is_list(value):
        return [value]
    content, texts, end = value[1:-1].strip(), [], 0
    while end < len(content):
        match = ELEMENT.match(content, end)
        assert match is not None
        text, end = match[1], match.end()
        texts.append(re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[:1] in ("'", '"') else text)
    return texts


def _is_list(value: str) -> bool:
    """Return whether the last character closes the first bracket: [one,two] is a list, [INST] Who? [/INST] is not."""
    if not value.startswith("["):
        return False
    depth = 0
    for n, char in enumerate(re.sub(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", lambda m: "." * len(m[0]), value)):
        depth += (char == "[") - (char == "]")
        if depth == 0:
            return n == len(value) - 1
    return False


def quote(text: str) -> str:
    """Quote a text for Hydra, without interpolation."""
    return QuotedString(escape(text), Quote.single).with_quotes()


def quote_list(texts: Iterable[str]) -> str:
    return f"[{','.join(map(quote, texts))}]"


def _quote_element(text: str) -> str:
    """Quote a text as an element for `parse_list`."""
    escaped = re.sub(r"([\\'])", r"\\\1", text)
    return f"'{escaped}'"


def list_override(key: str, texts: Iterable[str]) -> str:
    """Return the override that sets a list of texts."""
    return f"{key}=[{','.join(map(_quote_element, texts))}]"


def escape(text: str) -> str:
    r"""Escape `${` as `\${`, which OmegaConf takes literally; double the backslashes before it."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def unescape(text: str) -> str:
    return re.sub(r"(\\*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
