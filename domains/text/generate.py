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
from domains.text.ngram_lookup import NgramLookup
from domains.text.prompts import encode_prompts
from domains.text.tokenizers import Tokenizer

MAX_NGRAM_SIZE = 3  # tokens that prompt lookup matches at most
NUM_DRAFT_TOKENS = 4  # tokens that a draft model proposes at once, unless lookup says otherwise
MAX_CHARACTER_BYTES = 4  # of UTF-8: an incomplete character is held back for at most so many tokens


@dataclass(frozen=True)
class Sampling:
    """The settings by which the next token is chosen.

    Attributes:
        length: tokens to generate.
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: sample from so many of the most likely tokens; from all if None.
        top_p: sample from the fewest most likely tokens that hold so much of the probability (Holtzman et al. 2019).
        repetition_penalty: logits of tokens that occurred before are divided by it, or multiplied where they are
            negative (Keskar et al. 2019).
        seed: the same seed gives the same text on the same machine; row n of several samples by seed and n.
        lookup: propose so many tokens at once, by prompt lookup (Saxena 2023) or a draft model, and read them together.
            The model decides on each, so the text does not change. For one prompt.
    Raises:
        ValueError: for a value out of its range.
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
    """The state of one text: the window that the model sees, the tokens that occurred, and a random generator."""

    def __init__(self, adapter: Adapter, number: int, prompt: Sequence[int], seed: int):
        L, orders = adapter.context, adapter.ngram_orders
        lookup = NgramLookup(adapter.ngram_text + bytes(prompt[:-L]), orders) if orders else None
        self.number, self.context, self.match = number, L, lookup.append if lookup else lambda _: []
        self.window: list[Token] = [(token, self.match(token)) for token in prompt[-L:]]
        self.seen_tokens, self.num_generated = set(prompt), 0
        self.rng = np.random.default_rng((seed, number))

    def append(self, token: int) -> None:
        self.window.append((token, self.match(token)))
        self.seen_tokens.add(token)
        self.num_generated += 1

    def tokens(self) -> list[int]:
        return [token for token, _ in self.window]

    def truncate_window(self) -> None:
        """Keep the last half of a full window."""
        if len(self.window) > self.context:
            self.window = self.window[-(self.context // 2) :]


def prompt_lookup(tokens: list[int], count: int) -> list[int]:
    """Return what followed the last few tokens when they occurred before: of the longest match, the latest."""
    for n in range(min(MAX_NGRAM_SIZE, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == tokens[-n:]:
                return tokens[start + n : start + n + count]
    return []


class DraftModel:
    """Propose the most likely tokens of a smaller model (speculative decoding, Leviathan et al. 2023).

    Its cache is kept from call to call, as far as the tokens are still the same.
    """

    def __init__(self, adapter: Adapter, capacity: int):
        self.decoder, self.cached_tokens = CachedDecoder(adapter.eval(), capacity), list[int]()

    def __call__(self, tokens: list[int], count: int) -> list[int]:
        pairs = zip(self.cached_tokens, tokens[:-1], strict=False)
        unchanged = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.decoder.crop(unchanged)
        new, proposed = tokens[unchanged:], list[int]()
        for _ in range(count):
            logits = self.decoder.step([[(token, []) for token in new]])  # (1, L, V)
            new = [int(logits[0, -1].argmax())]
            proposed += new
        self.cached_tokens = [*tokens, *proposed][: self.decoder.length]
        return proposed


@torch.inference_mode()
def generate_tokens(
    adapter: Adapter,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    draft: Adapter | None = None,
    cached: bool = True,
    should_stop: Callable[[int, int], bool] = lambda row, token: False,
) -> Iterator[tuple[int, int]]:
    """Yield (row, token): the tokens that follow each prompt, as they are made. Rows do not depend on each other.

    The model sees a window of at most its context. When a row has filled it, the row goes on with the last half, which
    is read anew. So the text does not depend on `cached`, which keeps keys and values instead of reading all again.

    Args:
        draft: a smaller model with the same tokenizer, that proposes tokens.
        should_stop: called with the row and each token; True ends the row.
    Raises:
        ValueError: for a prompt that is empty or not of the vocabulary, proposals that the model or batch cannot have,
            or a draft that does not fit the model.
    """
    count = sampling.lookup or (NUM_DRAFT_TOKENS if draft else 0)
    _check(adapter, prompts, count, draft)
    adapter.eval()
    rows = [_Row(adapter, number, prompt, sampling.seed) for number, prompt in enumerate(prompts)]
    capacity = min(adapter.context, max(map(len, prompts)) + sampling.length)
    propose = DraftModel(draft, capacity) if draft else prompt_lookup
    decoder, proposed, logits = None, [], torch.empty(0)
    while rows:
        if decoder is None or decoder.length == capacity:
            for row in rows:
                row.truncate_window()
            decoder, proposed = CachedDecoder(adapter, capacity) if cached else UncachedDecoder(adapter), []
            logits = decoder.prefill([row.window for row in rows])  # (B, 1, V)
        else:
            proposed = propose(rows[0].tokens(), min(count, capacity - decoder.length - 1)) if count else []
            logits = decoder.step([[row.window[-1], *((token, []) for token in proposed)] for row in rows])  # (B, L, V)
        finished, t = set[int](), 0
        for t, at_t in enumerate(logits.unbind(1)):
            for n, token in enumerate(sample(at_t, sampling, [r.seen_tokens for r in rows], [r.rng for r in rows])):
                rows[n].append(token)
                yield rows[n].number, token
                if rows[n].num_generated == sampling.length or should_stop(rows[n].number, token):
                    finished.add(n)
            if finished or (t < len(proposed) and rows[0].window[-1][0] != proposed[t]):
                break
        if proposed:
            decoder.crop(decoder.length - len(proposed) + t)
        if finished and len(finished) < len(rows):
            decoder.select_rows([n for n in range(len(rows)) if n not in finished])
        rows = [row for n, row in enumerate(rows) if n not in finished]


def generate(adapter: Adapter, prompt: Sequence[int], sampling: Sampling, *, cached: bool = True) -> Iterator[int]:
    """Yield the tokens that follow one prompt, by `generate_tokens`."""
    return (token for _, token in generate_tokens(adapter, [prompt], sampling, cached=cached))


def sample(
    logits: Tensor, sampling: Sampling, seen_tokens: Sequence[set[int]], rngs: Sequence[np.random.Generator]
) -> list[int]:
    """Return a token for every row, from logits (B, V).

    Args:
        seen_tokens: the tokens of each row so far, for the repetition penalty.
        rngs: a random generator for each row.
    """
    logits = logits.float().cpu()
    if sampling.repetition_penalty != 1:
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        for row, tokens in zip(seen, seen_tokens, strict=True):
            row[list(tokens)] = True
        penalized = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
        logits = torch.where(seen, penalized, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        lowest = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    probs = logits.double().softmax(-1)  # (B, V)
    if sampling.top_p < 1:
        ordered, order = probs.sort(-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    cumulative = probs.cumsum(-1)
    uniform = torch.tensor([[1 - rng.random()] for rng in rngs])  # (B, 1), in (0, 1]
    return (cumulative < uniform * cumulative[:, -1:]).sum(-1).tolist()


class StreamDetokenizer:
    """Tokens as text, as far as it is certain: whole characters, and nothing that may begin a stop string.

    Args:
        tokenizer: of the tokens.
        stop_strings: the text ends before any of them.
    Attributes:
        finished: a stop string or the end of the document has come.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()):
        self.tokenizer, self.stop_strings, self.finished = tokenizer, stop_strings, False
        self.previous: list[int] = []  # the last token: some tokenizers write a word's space only behind another
        self.pending: list[int] = []  # tokens of a character that is not complete
        self.held_back = ""  # what may begin a stop string

    def push(self, token: int) -> str:
        """Add a token; return the text that is certain now."""
        if token == self.tokenizer.eos_token_id:
            self.finished = True
            return self.flush()
        self.pending.append(token)
        text = self._decode_pending()
        if text.endswith("\ufffd") and len(self.pending) < MAX_CHARACTER_BYTES:
            return ""
        self.previous, self.pending, self.held_back = [token], [], self.held_back + text
        found = [at for stop in self.stop_strings if (at := self.held_back.find(stop)) >= 0]
        if found:
            self.finished, self.held_back = True, self.held_back[: min(found)]
            return self.flush()
        held, stops = self.held_back, self.stop_strings
        sizes = range(1, min(len(held), max(map(len, stops), default=0)) + 1)
        overlap = max((n for n in sizes if any(stop.startswith(held[-n:]) for stop in stops)), default=0)
        self.held_back = held[len(held) - overlap :]
        return held[: len(held) - overlap]

    def flush(self) -> str:
        """Return what was held back."""
        text, self.held_back, self.pending = self.held_back + self._decode_pending(), "", []
        return text

    def _decode_pending(self) -> str:
        known = len(self.tokenizer.decode(self.previous))
        return self.tokenizer.decode([*self.previous, *self.pending])[known:]


@dataclass
class GenerationResult:
    """The continuations of some prompts.

    Attributes:
        texts: one for each prompt, without it.
        tokens: number of tokens generated, for all of them.
        seconds: from the first prompt to the last token.
    """

    texts: list[str]
    tokens: int
    seconds: float


def generate_text(
    adapter: Adapter,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    draft: Adapter | None = None,
    stop_strings: Sequence[str] = (),
    special: bool | None = None,
    on_text: Callable[[int, str], None] = lambda row, text: None,
) -> GenerationResult:
    """Continue prompts until a stop string, the end of the document, or `sampling.length` tokens.

    Args:
        draft: as in `generate_tokens`.
        special: read the spelling of a special token as that token, as in `encode_prompts`.
        on_text: called with the number of a prompt and every piece of its text, as soon as it is certain.
    Raises:
        ValueError: for an empty prompt, one that the tokenizer cannot encode, an empty stop string, or a model without
            a tokenizer.
    """
    if adapter.tokenizer is None:
        raise ValueError("this model has no tokenizer; domains.text.generate.generate_tokens takes and gives token ids")
    if not all(stop_strings):
        raise ValueError("a stop string is empty; give at least one character")
    start = time.perf_counter()
    detokenizers = [StreamDetokenizer(adapter.tokenizer, stop_strings) for _ in prompts]
    parts: list[list[str]] = [[] for _ in prompts]

    def emit(row: int, text: str) -> None:
        if text:
            parts[row].append(text)
            on_text(row, text)

    tokens, count = encode_prompts(adapter.tokenizer, prompts, special), 0
    if long := [row for row in tokens if len(row) - len(adapter.tokenizer.prompt_prefix) > adapter.context]:
        warn_data(
            f"{len(long)} of {len(tokens)} prompts are longer than the context (first: {len(long[0]):,} tokens): "
            f"it sees the last {adapter.context:,}"
        )
    generated = generate_tokens(
        adapter, tokens, sampling, draft=draft, should_stop=lambda row, _: detokenizers[row].finished
    )
    for row, token in generated:
        emit(row, detokenizers[row].push(token))
        count += 1
    for row, detokenizer in enumerate(detokenizers):
        emit(row, detokenizer.flush())
    return GenerationResult(["".join(part) for part in parts], count, time.perf_counter() - start)


def _check(adapter: Adapter, prompts: Sequence[Sequence[int]], num_proposed: int, draft: Adapter | None) -> None:
    for prompt in prompts:
        if not len(prompt):
            raise ValueError("the prompt is empty; give at least one character to go on from")
        if not 0 <= min(prompt) <= max(prompt) < adapter.vocab_size:
            raise ValueError(
                f"the prompt's tokens {min(prompt)} to {max(prompt)} must lie in 0 to {adapter.vocab_size - 1}"
            )
    models = [adapter] if draft is None else [adapter, draft]
    if num_proposed and (
        len(prompts) > 1 or any(m.ngram_orders or m.config.mixer is not Mixer.softmax for m in models)
    ):
        shown = " and ".join(f"data.ngram_lookup={list(m.ngram_orders)} with {m.config.mixer.value}" for m in models)
        raise ValueError(
            "guesses (lookup, draft) are for one prompt, and models without n-gram lookup, with model.mixer=softmax; "
            f"here are {len(prompts)}, {shown}"
        )
    if draft and _vocabulary(draft) != _vocabulary(adapter):
        raise ValueError(
            "the draft has another tokenizer than the model; train one with data.tokenizer=file and "
            "data.tokenizer_path=… of the model's run"
        )
    if draft and draft.context < adapter.context:
        raise ValueError(
            f"the draft's context of {draft.context} tokens is shorter than the model's, {adapter.context}; train one "
            f"with data.context={adapter.context}"
        )


def _vocabulary(adapter: Adapter) -> tuple[int, dict | None]:
    return adapter.vocab_size, adapter.tokenizer.spec() if adapter.tokenizer else None
