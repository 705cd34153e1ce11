"""A masked autoencoder of images: what a ViT can learn before it sees a label (He et al. 2022)."""
