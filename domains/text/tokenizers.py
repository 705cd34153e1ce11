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

END = "\0"  # no text holds it
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")  # what others call it
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # GPT-2's two files, under either name


class Tokenizer(ABC):
    """Text to tokens and back.

    Attributes:
        size: V.
        end: the token that stands between documents; None if there is none.
    """

    size: int
    end: int | None

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
    Raises:
        ValueError: if that is none, or its tokens do not say which bytes they stand for.
    """

    def __init__(self, definition: str):
        try:
            self.pieces = _package().Tokenizer.from_str(definition)
        except Exception as error:  # the package knows no narrower one
            raise ValueError(f"that is no tokenizer.json: {error}") from error
        self.definition = definition
        self.pieces.encode_special_tokens = True  # a text that spells one out has not used it
        self.pieces.no_truncation()
        self.pieces.no_padding()
        named = self.pieces.get_vocab()
        self.size = 1 + max(named.values(), default=-1)  # not every number need be taken
        self.end = next((named[name] for name in ENDS if name in named), None)

    def encode(self, text):
        return self.encode_all([text])[0]

    def encode_all(self, texts):
        parts = [text.split(END) for text in texts]
        if self.end is None and any(len(part) > 1 for part in parts):
            raise ValueError(f"the tokenizer has no token between documents; possible names of one: {', '.join(ENDS)}")
        encoded = iter(self.pieces.encode_batch_fast(list(chain(*parts)), add_special_tokens=False))
        joined = ([token for _ in part for token in (self.end, *next(encoded).ids)][1:] for part in parts)
        return [np.array(tokens, np.int64) for tokens in joined]

    def decode(self, tokens):
        texts, part = [], []
        for token in tokens:
            if token == self.end:
                texts.append(self.pieces.decode(part))
                part = []
            else:
                part.append(token)
        return END.join([*texts, self.pieces.decode(part)])

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
        return {"kind": "subwords", "definition": self.definition}


def load(spec: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `Tokenizer.spec` described."""
    match spec:
        case {"kind": "bytes"}:
            return Bytes()
        case {"kind": "characters", "alphabet": alphabet}:
            return Characters(alphabet)
        case {"kind": "subwords", "definition": definition}:
            return Subwords(definition)
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
    vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], special: Sequence[str], *, digits: bool = False
) -> Subwords:
    """Byte pairs that are known already.

    Args:
        vocabulary: the number of each token, spelt as GPT-2 spells bytes.
        merges: the pairs, the first to be joined first.
        special: tokens that no text spells.
        digits: is each digit a word of its own?
    """
    package = _package()
    pieces = _byte_level(package.models.BPE(vocab=vocabulary, merges=list(merges)), digits=digits)
    pieces.add_special_tokens(list(special))
    return Subwords(pieces.to_str())


def read(path: Path) -> Tokenizer:
    """A tokenizer.json, the folder that holds one or GPT-2's two files, or the tokenizer of a run.

    Raises:
        ValueError: if there is none of these.
    """
    if (path / "spec.json").is_file():
        spec = json.loads((path / "spec.json").read_text(encoding="utf-8"))
        return load(spec.get("tokenizer", {"kind": "bytes"}))
    if (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_file():
        return Subwords(path.read_text(encoding="utf-8", errors="replace"))
    for vocabulary, merges in PAIRS:
        if (path / vocabulary).is_file() and (path / merges).is_file():
            pieces = _byte_level(_package().models.BPE.from_file(str(path / vocabulary), str(path / merges)))
            pieces.add_special_tokens([ENDS[0]])
            return Subwords(pieces.to_str())
    pairs = " or ".join(" with ".join(pair) for pair in PAIRS)
    raise ValueError(f"{path} holds no tokenizer: give a tokenizer.json, a folder with {pairs}, or a run folder")


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
