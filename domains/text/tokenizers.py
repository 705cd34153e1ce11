"""Text as numbers and back: bytes, characters, or subwords.

A text is one string, with END between its documents. The token for END counts as one byte, so that all tokenizers
encode the same bytes, and bits per byte compares them.

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
from domains.text.tokenizer_config import chat_template_of, frame, read_tokenizer_config, spelling, template

END = "\0"  # no text holds it
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")  # what others call it
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # GPT-2's two files, under either name


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        size: V.
        end: the token that stands between documents; None if there is none.
        first, last: the tokens that a prompt begins and ends with, whatever it says.
        special: the spelling of tokens that no text means, such as <s>.
        chat_template: how others write a conversation; nothing here applies it. None if there is none.
    """

    size: int
    end: int | None
    first: Sequence[int] = ()
    last: Sequence[int] = ()
    special: Sequence[str] = ()
    chat_template: str | None = None

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text. Raises ValueError for what the vocabulary lacks."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; � for bytes that are no UTF-8."""

    @abstractmethod
    def widths(self) -> np.ndarray:
        """(V,): how many bytes of text each token stands for, 0 for one that stands for none."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """The tokenizer as plain values, for `load`."""

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str, special: bool) -> list[int]:
        """The tokens of a text to go on from, as transformers has them: between `first` and `last`.

        Args:
            text: the prompt.
            special: is what spells a special token that token? It is text otherwise.
        """
        return [*self.first, *self.encode(text).tolist(), *self.last]


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8."""

    size, end = 256, 0

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8)

    def decode(self, tokens):
        return bytes(tokens).decode(errors="replace")

    def widths(self):
        return np.ones(256, np.int64)

    def spec(self):
        return {"kind": "bytes"}


class Characters(Tokenizer):
    """The characters of an alphabet, in the order of their code points."""

    def __init__(self, alphabet: str):
        self.alphabet = "".join(sorted(set(alphabet)))
        self.size = len(self.alphabet)
        self.end = self.alphabet.index(END) if END in self.alphabet else None
        self.points = _points(self.alphabet)

    def encode(self, text):
        points = _points(text)
        tokens = self.points.searchsorted(points).clip(max=self.size - 1)
        strange = self.points[tokens] != points
        if strange.any():
            shown = ", ".join(repr(chr(point)) for point in np.unique(points[strange])[:8])
            raise ValueError(
                f"the tokenizer has no {shown}; it knows the {self.size} characters of its training data, "
                "data.tokenizer=bytes knows all"
            )
        return tokens

    def decode(self, tokens):
        return "".join(self.alphabet[token] for token in tokens)

    def widths(self):
        return np.array([len(character.encode()) for character in self.alphabet])

    def spec(self):
        return {"kind": "characters", "alphabet": self.alphabet}


class Subwords(Tokenizer):
    """Any tokenizer of the package `tokenizers` that gives back the text it was given.

    Args:
        definition: what its tokenizer.json holds.
        chat_template: of its tokenizer_config.json.
    Raises:
        ValueError: if that is none, or its tokens do not say which bytes they stand for.
    """

    def __init__(self, definition: str, chat_template: str | None = None):
        try:
            self.pieces = _package().Tokenizer.from_str(definition)
        except Exception as error:  # the package knows no narrower one
            raise ValueError(f"that is no tokenizer.json: {error}") from error
        self.definition, self.chat_template = definition, chat_template
        self.pieces.encode_special_tokens = True  # a text that spells one out has not used it
        self.pieces.no_truncation()
        self.pieces.no_padding()
        named = self.pieces.get_vocab()
        self.size = 1 + max(named.values(), default=-1)  # not every number need be taken
        self.end = next((named[name] for name in ENDS if name in named), None)
        parsed = json.loads(definition)
        try:
            self.first, self.last = frame(parsed.get("post_processor") or {})
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"that is no tokenizer.json: its template lacks {error}") from error
        self.special = [entry["content"] for entry in _added(parsed) if entry["special"]]

    def encode(self, text):
        return self.encode_all([text])[0]

    def encode_all(self, texts):
        parts = [text.split(END) for text in texts]
        if self.end is None and any(len(part) > 1 for part in parts):
            raise ValueError(f"the tokenizer has no token between documents; possible names of one: {', '.join(ENDS)}")
        try:
            encoded = iter(self.pieces.encode_batch_fast(list(chain(*parts)), add_special_tokens=False))
        except Exception as error:  # the package knows no narrower one
            raise ValueError(f"the tokenizer cannot read the text: {error}") from error
        joined = ([token for _ in part for token in (self.end, *next(encoded).ids)][1:] for part in parts)
        return [np.array(tokens, np.int64) for tokens in joined]

    def encode_prompt(self, text, special):
        self.pieces.encode_special_tokens = not special
        try:
            return super().encode_prompt(text, special)
        finally:
            self.pieces.encode_special_tokens = True

    def decode(self, tokens):
        texts, part = [], []
        for token in tokens:
            if token == self.end:
                texts.append(self.pieces.decode(part))
                part = []
            else:
                part.append(token)
        return END.join([*texts, self.pieces.decode(part)])

    def round_trip(self, texts: Sequence[str]) -> list[str]:
        """Each text encoded and decoded."""
        encoded = self.pieces.encode_batch_fast(list(texts), add_special_tokens=False)
        return self.pieces.decode_batch([one.ids for one in encoded])

    def widths(self):
        """From how the vocabulary is written: a character a byte (GPT-2), or ▁ for a space and <0x0A> for a byte."""
        definition = json.loads(self.definition)
        byte_level = "ByteLevel" in json.dumps([definition.get("decoder"), definition.get("pre_tokenizer")])
        added = {entry["id"]: 0 if entry["special"] else _written(entry["content"]) for entry in _added(definition)}
        out = np.zeros(self.size, np.int64)
        for name, token in self.pieces.get_vocab().items():
            out[token] = added.get(token, len(name) if byte_level else _written(name))
        if self.end is not None:
            out[self.end] = len(END)
        return out

    def spec(self):
        told = {} if self.chat_template is None else {"chat_template": self.chat_template}
        return {"kind": "subwords", "definition": self.definition, **told}


def load(spec: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `Tokenizer.spec` described."""
    match spec:
        case {"kind": "bytes"}:
            return Bytes()
        case {"kind": "characters", "alphabet": alphabet}:
            return Characters(alphabet)
        case {"kind": "subwords", "definition": definition}:
            return Subwords(definition, spec.get("chat_template"))
    raise ValueError(f"{spec.get('kind')!r} is no kind of tokenizer; possible: bytes, characters, subwords")


def learnt(texts: Iterable[str], size: int) -> Subwords:
    """Byte pairs learnt from texts, words cut in GPT-2's manner (Sennrich et al. 2016, Radford et al. 2019).

    Raises:
        ValueError: for a size that leaves no room for the 256 bytes and the end.
    """
    package = _package()
    if size < 257:
        raise ValueError(f"data.vocabulary={size} must be at least 257: every byte, and the end of a document")
    pieces = _byte_level(package.models.BPE())
    trainer = package.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[ENDS[0]],
        initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator((piece for text in texts for piece in text.split(END)), trainer)
    return Subwords(pieces.to_str())


def byte_pairs(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, ...]],
    special: Sequence[str],
    whole: Sequence[str] = (),
    *,
    digits: bool = False,
) -> Subwords:
    """Byte pairs that are known already.

    Args:
        vocabulary: the number of each token, spelt as GPT-2 spells bytes.
        merges: the pairs, the first to be joined first.
        special: tokens that no text spells.
        whole: tokens that stand for what they spell wherever that occurs.
        digits: is each digit a word of its own?
    """
    package = _package()
    pieces = _byte_level(package.models.BPE(vocab=vocabulary, merges=list(merges)), digits=digits)
    pieces.add_special_tokens(list(special))
    pieces.add_tokens([package.AddedToken(token, normalized=False) for token in whole])
    return Subwords(pieces.to_str())


def framed(made: Subwords, first: Sequence[int], last: Sequence[int], chat_template: str | None) -> Subwords:
    """The same tokenizer, which begins and ends a prompt with these tokens."""
    if not first and not last:
        return Subwords(made.definition, chat_template)
    names = {token: made.pieces.id_to_token(token) for token in (*first, *last)}
    definition = json.loads(made.definition) | {"post_processor": template(first, last, names)}
    return Subwords(json.dumps(definition, ensure_ascii=False), chat_template)


def read(path: Path) -> Tokenizer:
    """A tokenizer.json, the folder that holds one or GPT-2's two files, or the tokenizer of a run.

    Raises:
        ValueError: if there is none of these.
    """
    if (path / "spec.json").is_file():
        spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
        return load(spec.get("tokenizer", {"kind": "bytes"}))
    if (path / "tokenizer.json").is_file():
        return _configured(_definition(path / "tokenizer.json"), path, whole=True)
    if path.is_file():
        return Subwords(_definition(path))
    for vocabulary, merges in PAIRS:
        if (path / vocabulary).is_file() and (path / merges).is_file():
            return _configured(_of_two_files(path / vocabulary, path / merges), path, whole=False)
    pairs = " or ".join(" with ".join(pair) for pair in PAIRS)
    raise ValueError(f"{path} holds no tokenizer: give a tokenizer.json, a folder with {pairs}, or a run folder")


def _definition(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _of_two_files(vocabulary: Path, merges: Path) -> str:
    try:
        model = _package().models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the package knows no narrower one
        raise ValueError(f"{vocabulary} and {merges.name} are no byte pairs: {error}") from error
    pieces = _byte_level(model)
    pieces.add_special_tokens([ENDS[0]])
    return pieces.to_str()


def _configured(definition: str, folder: Path, whole: bool) -> Subwords:
    """A tokenizer as tokenizer_config.json completes it: what is special, how a prompt begins, and the chat template.

    Beside a whole tokenizer.json, transformers 5 leaves its add_bos_token and add_eos_token aside.
    """
    told = read_tokenizer_config(folder)
    made = Subwords(definition)
    names = {role: spelling(told.get(role)) for role in ROLES}
    known = made.pieces.get_vocab()
    if new := sorted({name for name in names.values() if name and name in known and name not in made.special}):
        made.pieces.add_special_tokens(new)
        made = Subwords(made.pieces.to_str())
    asked = {"bos_token": told.get("add_bos_token"), "eos_token": told.get("add_eos_token")}
    if whole:
        for (role, wanted), does in zip(asked.items(), (made.first, made.last), strict=True):
            if wanted is not None and bool(wanted) != bool(does):
                warn_data(
                    f"tokenizer_config.json says add_{role}={str(wanted).lower()}, and the template of tokenizer.json "
                    "otherwise: prompts follow the template, as in transformers 5"
                )
        return Subwords(made.definition, chat_template_of(told, folder))
    ends = []
    for role, wanted in asked.items():
        name = names[role] or ENDS[0]
        if wanted and name not in known:
            raise ValueError(f"tokenizer_config.json says add_{role}=true, and the vocabulary has no {name!r}")
        ends.append([made.pieces.token_to_id(name)] if wanted else [])
    first, last = ends
    return framed(made, first, last, chat_template_of(told, folder))


def beside(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder of weights; None where none lies there."""
    there = (folder / "tokenizer.json").is_file() or any((folder / a).is_file() for a, _ in PAIRS)
    return read(folder) if there else None


def _byte_level(model: Any, digits: bool = False) -> Any:
    package = _package()
    pieces, before = package.Tokenizer(model), package.pre_tokenizers
    pieces.pre_tokenizer = words = before.ByteLevel(add_prefix_space=False)
    if digits:
        pieces.pre_tokenizer = before.Sequence([before.Digits(individual_digits=True), words])
    pieces.decoder = package.decoders.ByteLevel()
    return pieces


def _package() -> Any:
    """The package `tokenizers`, an extra."""
    try:
        return import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise ValueError("subwords need the package tokenizers: pip install -e '.[bpe]'") from error


def _added(definition: dict[str, Any]) -> list[dict[str, Any]]:
    return definition.get("added_tokens") or []


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _written(name: str) -> int:
    """Bytes of a token in SentencePiece's spelling."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return 1
    return len(name.replace("▁", " ").encode())
