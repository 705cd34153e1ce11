"""Text as numbers and back: bytes, characters, or subwords.

A text is one string, with DOCUMENT_SEPARATOR between its documents. Its token counts as one byte, so that all
tokenizers encode the same bytes, and bits per byte compares them.

Shapes: V vocabulary
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from domains.data_warnings import warn_data
from domains.text.tokenizer_config import (
    prompt_tokens,
    read_chat_template,
    read_tokenizer_config,
    template_processing,
    token_text,
)

DOCUMENT_SEPARATOR = "\0"  # no text contains it
# Names of the end of a text in other tokenizers:
EOS_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# GPT-2's two files, under either pair of names:
BPE_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        vocab_size: V.
        eos_token_id: the token between documents; None if there is none.
        prompt_prefix, prompt_suffix: the tokens that every prompt begins and ends with.
        special_tokens: the spelling of tokens that no text stands for, such as <s>.
        chat_template: how others write a conversation; not applied here. None if there is none.
    """

    vocab_size: int
    eos_token_id: int | None
    prompt_prefix: Sequence[int] = ()
    prompt_suffix: Sequence[int] = ()
    special_tokens: Sequence[str] = ()
    chat_template: str | None = None

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text. Raise ValueError for characters outside the vocabulary."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; � for bytes that are no UTF-8."""

    @abstractmethod
    def bytes_per_token(self) -> np.ndarray:
        """Return (V,): how many bytes of text each token stands for, 0 for none."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Return the tokenizer as plain values, for `load_tokenizer`."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str, special: bool) -> list[int]:
        """Return the tokens of a prompt, as transformers does: between `prompt_prefix` and `prompt_suffix`.

        Args:
            text: the prompt.
            special: read the spelling of a special token as that token, not as text.
        """
        return [*self.prompt_prefix, *self.encode(text).tolist(), *self.prompt_suffix]


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8."""

    vocab_size, eos_token_id = 256, 0

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")

    def bytes_per_token(self):
        return np.ones(256, np.int64)

    def spec(self):
        return {"kind": "bytes"}


class Characters(Tokenizer):
    """The characters of an alphabet, in the order of their code points."""

    def __init__(self, alphabet: str):
        self.alphabet = "".join(sorted(set(alphabet)))
        self.vocab_size = len(self.alphabet)
        self.eos_token_id = self.alphabet.index(DOCUMENT_SEPARATOR) if DOCUMENT_SEPARATOR in self.alphabet else None
        self.code_points = _code_points(self.alphabet)

    def encode(self, text):
        points = _code_points(text)
        tokens = self.code_points.searchsorted(points).clip(max=self.vocab_size - 1)
        unknown = self.code_points[tokens] != points
        if unknown.any():
            shown = ", ".join(repr(chr(point)) for point in np.unique(points[unknown])[:8])
            raise ValueError(
                f"the tokenizer has no {shown}; it knows the {self.vocab_size} characters of its training data, "
                "data.tokenizer=bytes knows all"
            )
        return tokens

    def decode(self, tokens):
        return "".join(self.alphabet[token] for token in tokens)

    def bytes_per_token(self):
        return np.array([len(character.encode()) for character in self.alphabet])

    def spec(self):
        return {"kind": "characters", "alphabet": self.alphabet}


class Subwords(Tokenizer):
    """Any tokenizer of the package `tokenizers` that decodes to the text it encoded.

    Args:
        definition: the content of its tokenizer.json.
        chat_template: of its tokenizer_config.json.
    Raises:
        ValueError: for another content, or tokens whose bytes are not known.
    """

    def __init__(self, definition: str, chat_template: str | None = None):
        try:
            self.backend = _package().Tokenizer.from_str(definition)
        except Exception as error:  # the package knows no narrower one
            raise ValueError(f"that is no tokenizer.json: {error}") from error
        self.definition, self.chat_template = definition, chat_template
        self.backend.encode_special_tokens = True  # the spelling of one in a text is text
        self.backend.no_truncation()
        self.backend.no_padding()
        named = self.backend.get_vocab()
        self.vocab_size = 1 + max(named.values(), default=-1)  # numbers may have gaps
        self.eos_token_id = next((named[name] for name in EOS_TOKENS if name in named), None)
        parsed = json.loads(definition)
        try:
            self.prompt_prefix, self.prompt_suffix = prompt_tokens(parsed.get("post_processor") or {})
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"that is no tokenizer.json: its template lacks {error}") from error
        self.special_tokens = [entry["content"] for entry in _added_tokens(parsed) if entry["special"]]

    def encode(self, text):
        return self.encode_batch([text])[0]

    def encode_batch(self, texts):
        parts = [text.split(DOCUMENT_SEPARATOR) for text in texts]
        if self.eos_token_id is None and any(len(part) > 1 for part in parts):
            raise ValueError(
                f"the tokenizer has no token between documents; possible names of one: {', '.join(EOS_TOKENS)}"
            )
        try:
            encoded = iter(self.backend.encode_batch_fast(list(chain(*parts)), add_special_tokens=False))
        except Exception as error:  # the package knows no narrower one
            raise ValueError(f"the tokenizer cannot read the text: {error}") from error
        joined = ([token for _ in part for token in (self.eos_token_id, *next(encoded).ids)][1:] for part in parts)
        return [np.array(tokens, np.int64) for tokens in joined]

    def encode_prompt(self, text, special):
        self.backend.encode_special_tokens = not special
        try:
            return super().encode_prompt(text, special)
        finally:
            self.backend.encode_special_tokens = True

    def decode(self, tokens):
        texts, part = [], []
        for token in tokens:
            if token == self.eos_token_id:
                texts.append(self.backend.decode(part))
                part = []
            else:
                part.append(token)
        return DOCUMENT_SEPARATOR.join([*texts, self.backend.decode(part)])

    def round_trip(self, texts: Sequence[str]) -> list[str]:
        """Encode and decode each text."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return self.backend.decode_batch([one.ids for one in encoded])

    def bytes_per_token(self):
        """Count by the spelling in the vocabulary: a character a byte (GPT-2), or ▁ for a space and <0x0A> for a
        byte."""
        definition = json.loads(self.definition)
        byte_level = "ByteLevel" in json.dumps([definition.get("decoder"), definition.get("pre_tokenizer")])
        added = {
            entry["id"]: 0 if entry["special"] else _sentencepiece_bytes(entry["content"])
            for entry in _added_tokens(definition)
        }
        out = np.zeros(self.vocab_size, np.int64)
        for name, token in self.backend.get_vocab().items():
            out[token] = added.get(token, len(name) if byte_level else _sentencepiece_bytes(name))
        if self.eos_token_id is not None:
            out[self.eos_token_id] = len(DOCUMENT_SEPARATOR)
        return out

    def spec(self):
        config = {} if self.chat_template is None else {"chat_template": self.chat_template}
        return {"kind": "subwords", "definition": self.definition, **config}


def load_tokenizer(spec: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.spec` described."""
    match spec:
        case {"kind": "bytes"}:
            return Bytes()
        case {"kind": "characters", "alphabet": alphabet}:
            return Characters(alphabet)
        case {"kind": "subwords", "definition": definition}:
            return Subwords(definition, spec.get("chat_template"))
    raise ValueError(f"{spec.get('kind')!r} is no kind of tokenizer; possible: bytes, characters, subwords")


def train_bpe(texts: Iterable[str], size: int) -> Subwords:
    """Train byte pairs on texts that are split into words as in GPT-2 (Sennrich et al. 2016, Radford et al. 2019).

    Raises:
        ValueError: for a size below the 256 bytes and the separator.
    """
    package = _package()
    if size < 257:
        raise ValueError(f"data.vocab_size={size} must be at least 257: every byte, and the end of a document")
    backend = _byte_level(package.models.BPE())
    trainer = package.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS_TOKENS[0]],
        initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator((piece for text in texts for piece in text.split(DOCUMENT_SEPARATOR)), trainer)
    return Subwords(backend.to_str())


def bpe_from_merges(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, ...]],
    special: Sequence[str],
    whole: Sequence[str] = (),
    *,
    digits: bool = False,
) -> Subwords:
    """Return the tokenizer of known byte pairs.

    Args:
        vocabulary: the number of each token, spelt as GPT-2 spells bytes.
        merges: the pairs, in the order of merging.
        special: tokens that no text spells.
        whole: tokens that stand for their spelling wherever that occurs.
        digits: split numbers into single digits.
    """
    package = _package()
    backend = _byte_level(package.models.BPE(vocab=vocabulary, merges=list(merges)), digits=digits)
    backend.add_special_tokens(list(special))
    backend.add_tokens([package.AddedToken(token, normalized=False) for token in whole])
    return Subwords(backend.to_str())


def with_prompt_tokens(
    tokenizer: Subwords, first: Sequence[int], last: Sequence[int], chat_template: str | None
) -> Subwords:
    """Return the same tokenizer with these tokens at the beginning and end of a prompt."""
    if not first and not last:
        return Subwords(tokenizer.definition, chat_template)
    names = {token: tokenizer.backend.id_to_token(token) for token in (*first, *last)}
    definition = json.loads(tokenizer.definition) | {"post_processor": template_processing(first, last, names)}
    return Subwords(json.dumps(definition, ensure_ascii=False), chat_template)


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, the folder that holds one or GPT-2's two files, or the tokenizer of a run.

    Raises:
        ValueError: if there is none of these.
    """
    if (path / "spec.json").is_file():
        spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
        return load_tokenizer(spec.get("tokenizer", {"kind": "bytes"}))
    if (path / "tokenizer.json").is_file():
        return _apply_tokenizer_config(_read_definition(path / "tokenizer.json"), path, whole=True)
    if path.is_file():
        return Subwords(_read_definition(path))
    for vocabulary, merges in BPE_FILES:
        if (path / vocabulary).is_file() and (path / merges).is_file():
            return _apply_tokenizer_config(_from_bpe_files(path / vocabulary, path / merges), path, whole=False)
    pairs = " or ".join(" with ".join(pair) for pair in BPE_FILES)
    raise ValueError(f"{path} holds no tokenizer: give a tokenizer.json, a folder with {pairs}, or a run folder")


def _read_definition(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _from_bpe_files(vocabulary: Path, merges: Path) -> str:
    try:
        model = _package().models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the package knows no narrower one
        raise ValueError(f"{vocabulary} and {merges.name} are no byte pairs: {error}") from error
    backend = _byte_level(model)
    backend.add_special_tokens([EOS_TOKENS[0]])
    return backend.to_str()


def _apply_tokenizer_config(definition: str, folder: Path, whole: bool) -> Subwords:
    """Return a tokenizer completed by tokenizer_config.json: special tokens, the beginning of a prompt, the chat
    template.

    Beside a whole tokenizer.json, transformers 5 ignores its add_bos_token and add_eos_token.
    """
    config = read_tokenizer_config(folder)
    tokenizer = Subwords(definition)
    names = {role: token_text(config.get(role)) for role in ROLES}
    vocabulary = tokenizer.backend.get_vocab()
    special = {name for name in names.values() if name and name in vocabulary}
    if new := sorted(special - set(tokenizer.special_tokens)):
        tokenizer.backend.add_special_tokens(new)
        tokenizer = Subwords(tokenizer.backend.to_str())
    requested = {"bos_token": config.get("add_bos_token"), "eos_token": config.get("add_eos_token")}
    if whole:
        in_template = (tokenizer.prompt_prefix, tokenizer.prompt_suffix)
        for (role, add), tokens in zip(requested.items(), in_template, strict=True):
            if add is not None and bool(add) != bool(tokens):
                warn_data(
                    f"tokenizer_config.json says add_{role}={str(add).lower()}, and the template of tokenizer.json "
                    "otherwise: prompts follow the template, as in transformers 5"
                )
        return Subwords(tokenizer.definition, read_chat_template(config, folder))
    ends = []
    for role, add in requested.items():
        name = names[role] or EOS_TOKENS[0]
        if add and name not in vocabulary:
            raise ValueError(f"tokenizer_config.json says add_{role}=true, and the vocabulary has no {name!r}")
        ends.append([tokenizer.backend.token_to_id(name)] if add else [])
    first, last = ends
    return with_prompt_tokens(tokenizer, first, last, read_chat_template(config, folder))


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer in a folder of weights; None if there is none."""
    exists = (folder / "tokenizer.json").is_file() or any((folder / a).is_file() for a, _ in BPE_FILES)
    return read_tokenizer(folder) if exists else None


def _byte_level(model: Any, digits: bool = False) -> Any:
    package = _package()
    backend, before = package.Tokenizer(model), package.pre_tokenizers
    backend.pre_tokenizer = words = before.ByteLevel(add_prefix_space=False)
    if digits:
        backend.pre_tokenizer = before.Sequence([before.Digits(individual_digits=True), words])
    backend.decoder = package.decoders.ByteLevel()
    return backend


def _package() -> Any:
    """Import the package `tokenizers`, an extra."""
    try:
        return import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise ValueError("subwords need the package tokenizers: pip install -e '.[bpe]'") from error


def _added_tokens(definition: dict[str, Any]) -> list[dict[str, Any]]:
    return definition.get("added_tokens") or []


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _sentencepiece_bytes(name: str) -> int:
    """Return the number of bytes of a token in SentencePiece's spelling."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return 1
    return len(name.replace("▁", " ").encode())
