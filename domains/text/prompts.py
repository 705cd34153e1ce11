"""Prompts as tokens: they begin as the model's texts began, and may spell special tokens."""

from collections.abc import Sequence

from domains.data_warnings import warn_data
from domains.text.tokenizers import Tokenizer


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str], special: bool | None = None) -> list[list[int]]:
    """The tokens of each prompt, as transformers has them: with the tokens that its tokenizer puts around a text.

    Args:
        tokenizer: of the model.
        prompts: the texts.
        special: is what spells a special token, such as <s>, that token? It is text otherwise. None: as the tokenizer
            is meant: a token where it brings a chat template.
    Raises:
        ValueError: for an empty prompt, one that the tokenizer cannot hold or makes nothing of, or special tokens that
            there are none of.
    """
    if not all(prompts):
        raise ValueError("the prompt is empty; give at least one character to go on from")
    if special and not tokenizer.special:
        raise ValueError("special=true: this model's tokenizer has no special tokens; leave it out")
    read = tokenizer.chat_template is not None if special is None else special
    made = [tokenizer.encode_prompt(prompt, read) for prompt in prompts]
    _say(tokenizer, prompts, made, read)
    if not all(made):
        raise ValueError("the tokenizer makes no tokens of the prompt; give some letters to go on from")
    return made


def _say(tokenizer: Tokenizer, prompts: Sequence[str], made: list[list[int]], special: bool) -> None:
    """Say what was guessed of special tokens, and what a user may not expect of a template."""
    spelt = [name for prompt in prompts for name in tokenizer.special if name in prompt]
    if spelt and not special:
        warn_data(
            f"prompts spell {len(spelt)} special tokens (first: {spelt[0]}), which were read as text; special=true "
            "reads them as tokens"
        )
    n = len(tokenizer.first)
    if n and (twice := [tokens for tokens in made if tokens[:n] == tokens[n : 2 * n] == list(tokenizer.first)]):
        warn_data(
            f"{len(twice)} of {len(made)} prompts begin twice with what the tokenizer puts before a text, and once "
            "with it spelt out; leave it out of the prompt"
        )
    if tokenizer.last:
        warn_data(
            f"the tokenizer puts {len(tokenizer.last)} tokens behind a text, as in transformers; the model goes "
            "on from there"
        )
