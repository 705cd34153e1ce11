"""Words of a command line, key=value, as they were typed; and the same in Hydra's grammar.

Where a setting is text, its value is what was typed, to the letter: prompt=1984, run=2024_01_17, input=${x}. Hydra's
grammar would read a number, a number, and an interpolation. All other values are in that grammar.
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


def to_hydra(word: str, config: DictConfig, sweep: bool = False) -> str:
    """key=value in Hydra's grammar, so that a text setting gets the value as it was typed.

    A list of texts is written [one,two], each element as it is or, with commas or blanks at its ends, in quotes; a text
    alone is a list of one. `null` is no value where there may be none. In a sweep, commas part the values of a text.

    Args:
        word: as it was typed.
        config: has the types of all settings.
        sweep: whether the words are those of `attend train -m`.
    """
    key, equals, value = word.partition("=")
    if not equals or not KEY.fullmatch(key):
        return word
    kind = declared(config, key)
    if value == "null" and NoneType in get_args(kind):
        return word
    if _is(kind, str):
        choices = [choice.strip() for choice in value.split(",")] if sweep else [value]
        if sweep and (value.startswith(("'", '"')) or re.fullmatch(r"(choice|glob|tag|shuffle|sort)\(.*\)", value)):
            return word  # Hydra's grammar has quotes for a text with commas, and functions for a sweep
        return f"{key}={','.join(map(quote, choices))}"
    if _is(kind, list[str]):
        return f"{key}={quote_list(elements(value))}"
    return word if _parses(word) or value.startswith(("[", "{")) else f"{key}={quote(value)}"


def from_hydra(word: str) -> str:
    """The word that `to_hydra` made this one of, as far as it is text."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return word
    value = override._value
    if isinstance(value, QuotedString):
        return f"{override.key_or_group}={unescape(value.text)}"
    if isinstance(value, list) and value and all(isinstance(element, QuotedString) for element in value):
        texts = [unescape(element.text) for element in value]  # pyright: ignore[reportAttributeAccessIssue]
        return f"{override.key_or_group}=[{','.join(_in_quotes(text) for text in texts)}]"
    return word


def declared(config: DictConfig, key: str) -> Any:
    """The type that the dataclass behind a configuration declares for a key; None if it knows no such key."""
    parent, _, name = key.rpartition(".")
    if not re.fullmatch(r"[\w.]+", key):
        return None  # a choice, such as data@data.vision=digits
    node = OmegaConf.select(config, parent) if parent else config
    kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    return get_type_hints(kind).get(name) if isinstance(kind, type) and kind is not dict else None


def _is(kind: Any, wanted: Any) -> bool:
    """Whether a declared type is the wanted one, or that or None."""
    parts = [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) is not list else [kind]
    return kind == wanted or parts == [wanted]


def elements(value: str) -> list[str]:
    """The texts of a list: of `[one, two]` "one" and "two"; of a text that is no list, itself."""
    if not _is_list(value):
        return [value]
    inside, texts, end = value[1:-1].strip(), [], 0
    while end < len(inside):
        match = ELEMENT.match(inside, end)
        assert match is not None
        text, end = match[1], match.end()
        texts.append(re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if text[:1] in ("'", '"') else text)
    return texts


def _is_list(value: str) -> bool:
    """Whether the first bracket is closed by the last character: [one,two] is a list, [INST] Who? [/INST] is none."""
    if not value.startswith("["):
        return False
    depth = 0
    for n, letter in enumerate(re.sub(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", lambda m: "." * len(m[0]), value)):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return n == len(value) - 1
    return False


def quote(text: str) -> str:
    """A text in Hydra's quotes, in which nothing is interpolated."""
    return QuotedString(escape(text), Quote.single).with_quotes()


def quote_list(texts: Iterable[str]) -> str:
    return f"[{','.join(map(quote, texts))}]"


def _in_quotes(text: str) -> str:
    """A text as an element that `elements` reads."""
    escaped = re.sub(r"([\\'])", r"\\\1", text)
    return f"'{escaped}'"


def as_typed(key: str, texts: Iterable[str]) -> str:
    """The word that sets a list of texts."""
    return f"{key}=[{','.join(map(_in_quotes, texts))}]"


def escape(text: str) -> str:
    r"""`${` as `\${`, which OmegaConf reads as it stands; backslashes before it count double."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def unescape(text: str) -> str:
    return re.sub(r"(\\*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
