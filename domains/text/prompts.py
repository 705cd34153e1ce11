"""Prompts as tokens: with the tokens that the tokenizer puts around a text, and special tokens where they are spelt
out."""

from collections.abc import Sequence

from domains.data_warnings import warn_data
from domains.text.tokenizers import Tokenizer


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str], special: bool | None = None) -> list[list[int]]:
    """Return the tokens of each prompt as transformers does: with the tokens that its tokenizer puts around a text.

    Args:
        tokenizer: of the model.
        prompts: the texts.
        special: read the spelling of a special token, such as <s>, as that token, not as text. None: if the tokenizer
            has a chat template.
    Raises:
        ValueError: for an empty prompt, one that the tokenizer cannot encode or that has no tokens, or special=True
            without special tokens.
    """
    if not all(prompts):
        raise ValueError("the prompt is empty; give at least one character to go on from")
    if special and not tokenizer.special_tokens:
        raise ValueError("special=true: this model's tokenizer has no special tokens; leave it out")
    read = tokenizer.chat_template is not None if special is None else special
    made = [tokenizer.encode_prompt(prompt, read) for prompt in prompts]
    _warn_special_tokens(tokenizer, prompts, made, read)
    if not all(made):
        raise ValueError("the tokenizer makes no tokens of the prompt; give some letters to go on from")
    return made


def _warn_special_tokens(tokenizer: Tokenizer, prompts: Sequence[str], made: list[list[int]], special: bool) -> None:
    """Warn of spelt-out special tokens, and of what a user may not expect of a template."""
    spelt = [name for prompt in prompts for name in tokenizer.special_tokens if name in prompt]
    if spelt and not special:
        warn_data(
            f"prompts spell {len(spelt)} special tokens (first: {spelt[0]}), which were read as text; special=true "
            "reads them as tokens"
        )
    n = len(tokenizer.prompt_prefix)
    if n and (twice := [tokens for tokens in made if tokens[:n] == tokens[n : 2 * n] == list(tokenizer.prompt_prefix)]):
        warn_data(
            f"{len(twice)} of {len(made)} prompts begin twice with what the tokenizer puts before a text, and once "
            "with it spelt out; leave it out of the prompt"
        )
    if tokenizer.prompt_suffix:
        warn_data(
            f"the tokenizer puts {len(tokenizer.prompt_suffix)} tokens behind a text, as in transformers; the model "
            "goes on from there"
        )
