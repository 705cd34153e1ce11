"""A masked autoencoder of images: pretraining of a ViT without labels (He et al. 2022)."""

from domains.domain import Domain

DOMAIN = Domain(__name__)
