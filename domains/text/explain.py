"""Text as `attend explain` shows it.

Shapes: L tokens · V vocabulary
"""

import warnings

import torch

from domains.explanation import Element, Explanation, Form, percent
from domains.text.adapter import Adapter
from domains.text.data import Data
from domains.text.decoder import make_batch
from domains.text.evaluate import check_tokenizer
from domains.text.ngram_lookup import NgramLookup
from domains.text.predict import read_prompt
from domains.text.prompts import encode_prompts

MAX_TOKENS = 128  # tokens on one page
VISIBLE_WHITESPACE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def explanations(adapter: Adapter, source: str) -> list[Explanation]:
    """Return the explanation of a text, or of a text file: of its first tokens, at most the context and one page (128).

    Raises:
        ValueError: for fewer than two tokens, a file that cannot be read, or what the tokenizer cannot hold.
    """
    if adapter.tokenizer is None:
        raise ValueError("this model has no tokenizer, so that a text cannot be read")
    text, limit = read_prompt(source), min(adapter.context, MAX_TOKENS)
    (tokens,) = encode_prompts(adapter.tokenizer, [text])
    if len(tokens) < 2:
        raise ValueError(f"{text!r} has {len(tokens)} tokens; give at least 2, for one to attend to the other")
    if len(tokens) > limit:
        warnings.warn(f"the first {limit} of {len(tokens)} tokens are shown", stacklevel=2)
    return [explanation(adapter, text[:40], tokens[:limit])]


def example(adapter: Adapter, data: Data) -> Explanation:
    """Return the explanation of the beginning of the first document that begins in the test split, or of the split.

    Raises:
        ValueError: if the data have other tokens than the model.
    """
    check_tokenizer(adapter, data)
    start = data.first_document_start("test")
    end = min(start + min(adapter.context, MAX_TOKENS), data.bounds["test"][1])
    return explanation(adapter, "a beginning in the test split", data.corpus.tokens[start:end].tolist())


@torch.inference_mode()
def explanation(adapter: Adapter, name: str, tokens: list[int]) -> Explanation:
    match = NgramLookup(adapter.ngram_text, adapter.ngram_orders).append if adapter.ngram_orders else lambda _: []
    batch = make_batch([[(token, match(token)) for token in tokens]], adapter)
    probabilities, top_tokens = adapter(batch)[0].float().softmax(-1).topk(min(5, adapter.vocab_size))  # (L, 5) each
    guesses = [[shown(adapter, token) for token in row] for row in top_tokens.tolist()]
    elements = []
    for n, token in enumerate(tokens):
        label, guess = shown(adapter, token), f"{guesses[n][0]} ({percent(probabilities[n, 0].item())})"
        note = f"“{label}”, token {n + 1} of {len(tokens)}; the model expects {guess} next"
        elements.append(Element(label, note))
    return Explanation(
        name=name,
        form=Form.words,
        batch=batch,
        elements=elements,
        answers=[(f"next: {a}", percent(p)) for a, p in zip(guesses[-1], probabilities[-1].tolist(), strict=True)],
        distribution=lambda predictions: predictions.float().softmax(-1),  # (B, L, V)
        about=f"{len(tokens)} predictions, one at each token: the probability of each of {adapter.vocab_size:,} "
        "tokens to come next",
    )


def shown(adapter: Adapter, token: int) -> str:
    """Return a token as a page shows it: with visible whitespace, and a broken character as its number."""
    assert adapter.tokenizer is not None
    text = adapter.tokenizer.decode([token])
    return (
        f"‹{token}›"
        if not text or "\ufffd" in text
        else "".join(VISIBLE_WHITESPACE.get(letter, letter) for letter in text)
    )
