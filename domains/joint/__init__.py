"""One core trained on several domains at once. It alone imports others' configurations, and loads the rest by name."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
