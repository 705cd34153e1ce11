"""A masked autoencoder starts from another model's weights as any ViT does."""

from domains.vision.init_from import fitted as fitted
