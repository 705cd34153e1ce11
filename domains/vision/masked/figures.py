"""The picture of a masked autoencoder."""

from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor


def draw_reconstructions(images: Tensor, masked: Tensor, reconstructed: Tensor, path: Path) -> None:
    """Draw a column for each image, (B, C, Y, X) in [0, 1]: its visible part, its reconstruction, and the image
    itself."""
    rows = {"visible": masked, "reconstructed": reconstructed, "true": images}
    figure = Figure(figsize=(0.6 + 1.25 * len(images), 4.2), dpi=120, layout="constrained")
    axes = figure.subplots(3, len(images), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            ax.imshow(picture.float().cpu().permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(name, fontsize=11)
    figure.suptitle("reconstructed patches have the mean and contrast of the true ones", fontsize=9)
    figure.savefig(path)
