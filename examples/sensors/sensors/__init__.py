"""Series of sensors, several channels each, told apart by a transformer over pieces of them."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
