"""Text as `attend explain` shows it.

Shapes: L tokens · V vocabulary
"""

import warnings

import torch

from domains.explanation import Element, Explanation, Form, percent
from domains.text.adapter import Adapter
from domains.text.data import Data
from domains.text.decoder import batch_of
from domains.text.evaluate import check_tokens
from domains.text.ngram_lookup import Memory
from domains.text.predict import read
from domains.text.prompts import encode_prompts

MOST = 128  # tokens on one page
SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def explanations(adapter: Adapter, source: str) -> list[Explanation]:
    """A text, or what a text file holds: its first tokens, as many as the context and one page (128) have room for.

    Raises:
        ValueError: for fewer than two tokens, a file that cannot be read, or what the tokenizer cannot hold.
    """
    if adapter.tokenizer is None:
        raise ValueError("this model has no tokenizer, so that a text cannot be read")
    text, room = read(source), min(adapter.context, MOST)
    (tokens,) = encode_prompts(adapter.tokenizer, [text])
    if len(tokens) < 2:
        raise ValueError(f"{text!r} has {len(tokens)} tokens; give at least 2, for one to attend to the other")
    if len(tokens) > room:
        warnings.warn(f"the first {room} of {len(tokens)} tokens are shown", stacklevel=2)
    return [explanation(adapter, text[:40], tokens[:room])]


def example(adapter: Adapter, data: Data) -> Explanation:
    """The beginning of the first document that begins in the test split, or of the split.

    Raises:
        ValueError: if the data have other tokens than the model.
    """
    check_tokens(adapter, data)
    start = data.opening("test")
    end = min(start + min(adapter.context, MOST), data.bounds["test"][1])
    return explanation(adapter, "a beginning in the test split", data.corpus.tokens[start:end].tolist())


@torch.inference_mode()
def explanation(adapter: Adapter, name: str, tokens: list[int]) -> Explanation:
    recall = Memory(adapter.memory, adapter.orders).append if adapter.orders else lambda _: []
    batch = batch_of([[(token, recall(token)) for token in tokens]], adapter)
    chances, likeliest = adapter(batch)[0].float().softmax(-1).topk(min(5, adapter.vocabulary))  # (L, 5) each
    said = [[shown(adapter, token) for token in row] for row in likeliest.tolist()]
    elements = []
    for n, token in enumerate(tokens):
        label, guess = shown(adapter, token), f"{said[n][0]} ({percent(chances[n, 0].item())})"
        note = f"“{label}”, token {n + 1} of {len(tokens)}; the model expects {guess} next"
        elements.append(Element(label, note))
    return Explanation(
        name=name,
        form=Form.words,
        batch=batch,
        elements=elements,
        answers=[(f"next: {a}", percent(p)) for a, p in zip(said[-1], chances[-1].tolist(), strict=True)],
        distribution=lambda predictions: predictions.float().softmax(-1),  # (B, L, V)
        about=f"{len(tokens)} predictions, one at each token: the probability of each of {adapter.vocabulary:,} "
        "tokens to come next",
    )


def shown(adapter: Adapter, token: int) -> str:
    """A token as it is written on a page: with blanks that can be seen, and a broken character as its number."""
    assert adapter.tokenizer is not None
    text = adapter.tokenizer.decode([token])
    return f"‹{token}›" if not text or "\ufffd" in text else "".join(SHOWN.get(letter, letter) for letter in text)
