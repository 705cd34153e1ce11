"""Vision: a ViT on image patches (Dosovitskiy et al. 2020)."""
