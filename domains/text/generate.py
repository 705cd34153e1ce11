"""Text from a language model, one token at a time.

Shapes: B rows · L tokens read at once · V vocabulary
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from core.config import Mixer
from domains.data_warnings import warn_data
from domains.text.adapter import Adapter
from domains.text.decoder import CachedDecoder, Token, UncachedDecoder
from domains.text.ngram_lookup import Memory
from domains.text.prompts import encode_prompts
from domains.text.tokenizers import Tokenizer

NGRAM = 3  # tokens at most that a guess looks up
GUESSES = 4  # tokens that a draft guesses at once, unless lookup says otherwise
LONGEST_CHARACTER = 4  # bytes at most that a character waits for


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        length: tokens to write.
        temperature: scores are divided by it; 0 takes the likeliest token.
        top_k: only so many of the likeliest tokens are drawn from; all of them if None.
        top_p: only the fewest likeliest tokens that hold so much of the probability (Holtzman et al. 2019).
        repetition_penalty: scores of tokens that are there already are divided by it, or multiplied where they are
            negative (Keskar et al. 2019).
        seed: the same seed gives the same text on the same machine; row n of several draws by seed and n.
        lookup: so many tokens are guessed at once, as what followed the last few tokens before (prompt lookup decoding,
            Saxena 2023) or by a draft, and read together; the model decides on each, so the text stays what it is. For
            one prompt.
    Raises:
        ValueError: for values that cannot be.
    """

    length: int = 600
    temperature: float = 0.7
    top_k: int | None = 40
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    lookup: int = 0

    def __post_init__(self):
        if self.length < 1 or self.temperature < 0 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(f"sampling needs length >= 1, temperature >= 0 and top_k >= 1, got {self}")
        if not 0 < self.top_p <= 1 or self.repetition_penalty <= 0 or self.lookup < 0:
            raise ValueError(f"sampling needs 0 < top_p <= 1, repetition_penalty > 0 and lookup >= 0, got {self}")


class _Row:
    """One text: the window that the model sees of it, and what it takes to go on."""

    def __init__(self, adapter: Adapter, number: int, prompt: Sequence[int], seed: int):
        L = adapter.context
        memory = Memory(adapter.memory + bytes(prompt[:-L]), adapter.orders) if adapter.orders else None
        self.number, self.context, self.recall = number, L, memory.append if memory else lambda _: []
        self.window: list[Token] = [(token, self.recall(token)) for token in prompt[-L:]]
        self.said, self.written = set(prompt), 0
        self.draw = np.random.default_rng((seed, number))

    def append(self, token: int) -> None:
        self.window.append((token, self.recall(token)))
        self.said.add(token)
        self.written += 1

    def tokens(self) -> list[int]:
        return [token for token, _ in self.window]

    def restart(self) -> None:
        """A full window goes on with its last half."""
        if len(self.window) > self.context:
            self.window = self.window[-(self.context // 2) :]


def repeated(tokens: list[int], count: int) -> list[int]:
    """What followed the last few tokens when they stood here before; of the longest match, the latest."""
    for n in range(min(NGRAM, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == tokens[-n:]:
                return tokens[start + n : start + n + count]
    return []


class Draft:
    """What a smaller model would write next: its likeliest tokens (speculative decoding, Leviathan et al. 2023).

    It keeps what it has read, as far as that still stands.
    """

    def __init__(self, adapter: Adapter, capacity: int):
        self.decoder, self.read = CachedDecoder(adapter.eval(), capacity), list[int]()

    def __call__(self, tokens: list[int], count: int) -> list[int]:
        stands = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.read, tokens[:-1], strict=False)))
        self.decoder.crop(stands)
        new, guesses = tokens[stands:], list[int]()
        for _ in range(count):
            logits = self.decoder.step([[(token, []) for token in new]])  # (1, L, V)
            new = [int(logits[0, -1].argmax())]
            guesses += new
        self.read = [*tokens, *guesses][: self.decoder.length]
        return guesses


@torch.inference_mode()
def write(
    adapter: Adapter,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    *,
    draft: Adapter | None = None,
    cached: bool = True,
    ended: Callable[[int, int], bool] = lambda row, token: False,
) -> Iterator[tuple[int, int]]:
    """(row, token), as they are made: the tokens that follow each prompt. Rows do not depend on each other.

    The model sees a window of at most its context. When a row has filled it, the row goes on with the last half, read
    anew, so the text does not depend on `cached`: what was read is kept from token to token, or all is read again.

    Args:
        draft: a smaller model with the same tokenizer, that guesses what comes next.
        ended: asked after every token; a row goes no farther when it says so.
    Raises:
        ValueError: for a prompt that is empty or not of the vocabulary, guesses that the model or batch cannot have, or
            a draft that does not fit the model.
    """
    count = how.lookup or (GUESSES if draft else 0)
    _check(adapter, prompts, count, draft)
    adapter.eval()
    rows = [_Row(adapter, number, prompt, how.seed) for number, prompt in enumerate(prompts)]
    capacity = min(adapter.context, max(map(len, prompts)) + how.length)
    guesses = Draft(draft, capacity) if draft else repeated
    decoder, guess, logits = None, [], torch.empty(0)
    while rows:
        if decoder is None or decoder.length == capacity:
            for row in rows:
                row.restart()
            decoder, guess = CachedDecoder(adapter, capacity) if cached else UncachedDecoder(adapter), []
            logits = decoder.prefill([row.window for row in rows])  # (B, 1, V)
        else:
            guess = guesses(rows[0].tokens(), min(count, capacity - decoder.length - 1)) if count else []
            logits = decoder.step([[row.window[-1], *((token, []) for token in guess)] for row in rows])  # (B, L, V)
        gone, t = set[int](), 0
        for t, following in enumerate(logits.unbind(1)):
            for n, token in enumerate(choose(following, how, [row.said for row in rows], [row.draw for row in rows])):
                rows[n].append(token)
                yield rows[n].number, token
                if rows[n].written == how.length or ended(rows[n].number, token):
                    gone.add(n)
            if gone or (t < len(guess) and rows[0].window[-1][0] != guess[t]):
                break
        if guess:
            decoder.crop(decoder.length - len(guess) + t)
        if gone and len(gone) < len(rows):
            decoder.keep([n for n in range(len(rows)) if n not in gone])
        rows = [row for n, row in enumerate(rows) if n not in gone]


def generate(adapter: Adapter, prompt: Sequence[int], how: Sampling, *, cached: bool = True) -> Iterator[int]:
    """The tokens that follow one prompt, by `write`."""
    return (token for _, token in write(adapter, [prompt], how, cached=cached))


def choose(scores: Tensor, how: Sampling, said: Sequence[set[int]], draws: Sequence[np.random.Generator]) -> list[int]:
    """A token for every row, from the model's scores (B, V), what the rows have said, and their luck."""
    scores = scores.float().cpu()
    if how.repetition_penalty != 1:
        there = torch.zeros(scores.shape, dtype=torch.bool)
        for row, tokens in zip(there, said, strict=True):
            row[list(tokens)] = True
        lowered = torch.where(scores > 0, scores / how.repetition_penalty, scores * how.repetition_penalty)
        scores = torch.where(there, lowered, scores)
    if how.temperature == 0:
        return scores.argmax(-1).tolist()
    scores = scores / how.temperature
    if how.top_k is not None and how.top_k < scores.shape[-1]:
        lowest = scores.topk(how.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < lowest, -torch.inf)
    shares = scores.double().softmax(-1)  # (B, V)
    if how.top_p < 1:
        ordered, order = shares.sort(-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= how.top_p, 0.0)
        shares = torch.zeros_like(shares).scatter(-1, order, ordered)
    upto = shares.cumsum(-1)
    spots = torch.tensor([[1 - draw.random()] for draw in draws])  # (B, 1), in (0, 1]
    return (upto < spots * upto[:, -1:]).sum(-1).tolist()


class Speech:
    """Tokens as text, as far as it is certain: whole characters, and nothing that may begin a stop string.

    Args:
        tokenizer: of the tokens.
        stops: the text ends before any of them.
    Attributes:
        ended: a stop string or the end of the document has come.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self.tokenizer, self.stops, self.ended = tokenizer, stops, False
        self.before: list[int] = []  # the last token: some tokenizers write a word's space only behind another
        self.waiting: list[int] = []
        self.held = ""

    def hear(self, token: int) -> str:
        """What one more token makes certain."""
        if token == self.tokenizer.end:
            self.ended = True
            return self.rest()
        self.waiting.append(token)
        text = self._said()
        if text.endswith("\ufffd") and len(self.waiting) < LONGEST_CHARACTER:
            return ""
        self.before, self.waiting, self.held = [token], [], self.held + text
        found = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if found:
            self.ended, self.held = True, self.held[: min(found)]
            return self.rest()
        sizes = range(1, min(len(self.held), max(map(len, self.stops), default=0)) + 1)
        open_end = max((n for n in sizes if any(stop.startswith(self.held[-n:]) for stop in self.stops)), default=0)
        said, self.held = self.held[: len(self.held) - open_end], self.held[len(self.held) - open_end :]
        return said

    def rest(self) -> str:
        """What was held back."""
        text, self.held, self.waiting = self.held + self._said(), "", []
        return text

    def _said(self) -> str:
        known = len(self.tokenizer.decode(self.before))
        return self.tokenizer.decode([*self.before, *self.waiting])[known:]


@dataclass
class Written:
    """What came of some prompts.

    Attributes:
        texts: one for each prompt, without it.
        tokens: how many were made, for all of them.
        seconds: from the first prompt to the last token.
    """

    texts: list[str]
    tokens: int
    seconds: float


def texts(
    adapter: Adapter,
    prompts: Sequence[str],
    how: Sampling,
    *,
    draft: Adapter | None = None,
    stops: Sequence[str] = (),
    special: bool | None = None,
    show: Callable[[int, str], None] = lambda row, text: None,
) -> Written:
    """Go on from prompts until a stop string, the end of the document, or `how.length` tokens.

    Args:
        draft: as in `write`.
        special: are special tokens read where a prompt spells them? As in `encode_prompts`.
        show: called with every piece of text as soon as it is certain, and the number of its prompt.
    Raises:
        ValueError: for an empty prompt, one that the tokenizer cannot hold, an empty stop string, or a model without a
            tokenizer.
    """
    if adapter.tokenizer is None:
        raise ValueError("this model has no tokenizer; domains.text.generate.write takes and gives numbers of tokens")
    if not all(stops):
        raise ValueError("a stop string is empty; give at least one character")
    began = time.perf_counter()
    speeches = [Speech(adapter.tokenizer, stops) for _ in prompts]
    parts: list[list[str]] = [[] for _ in prompts]

    def say(row: int, text: str) -> None:
        if text:
            parts[row].append(text)
            show(row, text)

    tokens, count = encode_prompts(adapter.tokenizer, prompts, special), 0
    if long := [row for row in tokens if len(row) - len(adapter.tokenizer.first) > adapter.context]:
        warn_data(
            f"{len(long)} of {len(tokens)} prompts are longer than the context (first: {len(long[0]):,} tokens): "
            f"it sees the last {adapter.context:,}"
        )
    for row, token in write(adapter, tokens, how, draft=draft, ended=lambda row, _: speeches[row].ended):
        say(row, speeches[row].hear(token))
        count += 1
    for row, speech in enumerate(speeches):
        say(row, speech.rest())
    return Written(["".join(part) for part in parts], count, time.perf_counter() - began)


def _check(adapter: Adapter, prompts: Sequence[Sequence[int]], guesses: int, draft: Adapter | None) -> None:
    for prompt in prompts:
        if not len(prompt):
            raise ValueError("the prompt is empty; give at least one character to go on from")
        if not 0 <= min(prompt) <= max(prompt) < adapter.vocabulary:
            raise ValueError(
                f"the prompt's tokens {min(prompt)} to {max(prompt)} must lie in 0 to {adapter.vocabulary - 1}"
            )
    models = [adapter] if draft is None else [adapter, draft]
    if guesses and (len(prompts) > 1 or any(m.orders or m.config.mixer is not Mixer.softmax for m in models)):
        shown = " and ".join(f"data.recall={list(m.orders)} with {m.config.mixer.value}" for m in models)
        raise ValueError(
            "guesses (lookup, draft) are for one prompt, and models without recall, with model.mixer=softmax; here are "
            f"{len(prompts)}, {shown}"
        )
    if draft and _tokens(draft) != _tokens(adapter):
        raise ValueError(
            "the draft has another tokenizer than the model; train one with data.tokenizer=file and "
            "data.tokenizer_path=… of the model's run"
        )
    if draft and draft.context < adapter.context:
        raise ValueError(
            f"the draft's context of {draft.context} tokens is shorter than the model's, {adapter.context}; train one "
            f"with data.context={adapter.context}"
        )


def _tokens(adapter: Adapter) -> tuple[int, dict | None]:
    return adapter.vocabulary, adapter.tokenizer.spec() if adapter.tokenizer else None
