"""A masked autoencoder begins with another model's weights as any ViT does."""

from domains.vision.start import fitted as fitted
