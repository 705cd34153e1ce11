"""Vision: a ViT on image patches (Dosovitskiy et al. 2020)."""

from domains.domain import Domain

DOMAIN = Domain(__name__, evaluate_options=("flips",))
