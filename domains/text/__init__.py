"""Text: a causal language model on bytes, which can look up what the text before its context says."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
