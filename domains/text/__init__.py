"""Text: a causal language model on bytes, with a memory of the text before its context."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
