"""A masked autoencoder of images: what a ViT can learn before it sees a label (He et al. 2022)."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
