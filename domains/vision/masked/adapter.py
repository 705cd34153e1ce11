"""A masked autoencoder on the shared core.

Shapes: B batch · C channels · Y, X pixels · h, w patches along a side · L = h·w patches · V of them visible ·
E class token and registers · W width of the encoder · D of the decoder · P = C·p·p numbers in a patch of p×p pixels
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import Mixer, PositionConfig
from core.layers import Transformer
from core.positions import Sinusoidal, grid_positions
from domains.adapter import Batch, Loss, Tokens
from domains.vision import adapter as vision
from domains.vision.masked.config import ModelConfig

GAPS = (Mixer.softmax, Mixer.linear, Mixer.performer)  # mix tokens by what they are; the others count neighbours
EPS = 1e-6  # beside the variance of a patch


class Adapter(vision.Adapter):
    """The domain's ViT sees a few patches of an image; a smaller Transformer paints the rest from what it made of them.

        loss = mean over hidden patches of |painted - standardised|² / P

    The ViT runs on the visible patches alone. What is hidden is set to the mean of the pixels before the patches are
    embedded: a convolutional stem looks beyond a patch, and shall not see it either.

    Source: He et al. 2022, "Masked autoencoders are scalable vision learners".

    Args:
        config: the ViT, `hidden`, and the decoder.
        position: how the ViT's patches know where they are; the decoder's do by sines and cosines.
        spec: as of a ViT.
    Raises:
        ValueError: if no patch would be hidden or none seen, for a mixer that cannot leave patches out, or patches of
            a single number.
    """

    metric_names = ("loss",)

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__(config, position, spec)
        c, channels, p = config, self.images[0], config.patch_size
        patches = self.grid[0] * self.grid[1]
        hidden = round(c.hidden * patches)
        if not 0 < hidden < patches:
            raise ValueError(f"model.hidden={c.hidden} hides {hidden} of {patches} patches; hide some and leave some")
        self.seen = patches - hidden
        if c.mixer not in GAPS:
            able = ", ".join(mixer.value for mixer in GAPS)
            raise ValueError(f"model.mixer={c.mixer.value} counts neighbours, and most are left out; use {able}")
        if channels * p * p < 2:
            raise ValueError("a patch of one number cannot be standardised; set model.patch_size to 2 or more")
        del self.classify  # labels are not looked at
        self.gather = None
        self.narrow = nn.Linear(c.dim, c.decoder.dim)
        self.blank = nn.Parameter(torch.randn(c.decoder.dim) * 0.02)
        self.decoder = Transformer(c.decoder, Sinusoidal(c.decoder.dim, axes=2))
        self.paint = nn.Linear(c.decoder.dim, channels * p * p)

    def tokens(self, batch: Batch) -> Tokens:
        seen, E = self.visible(batch["noise"]), self.extra  # (B, V)
        tokens = super().tokens({"images": self.masked(batch["images"], batch["noise"], self.mean)})  # (B, E + L, W)
        assert tokens.positions is not None
        index = F.pad(seen + E, (E, 0))  # (B, E + V)
        index[:, :E] = torch.arange(E, device=index.device)
        x = tokens.x.gather(1, index[..., None].expand(-1, -1, tokens.x.shape[2]))  # (B, E + V, W)
        return Tokens(x, positions=tokens.positions[index])

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Every patch as the decoder paints it, (B, L, P)."""
        assert tokens.positions is not None
        E, (h, w) = self.extra, self.grid
        x = self.narrow(self.norm(hidden))  # (B, E + V, D)
        row, column = tokens.positions[:, E:].unbind(-1)
        index = (row * w + column)[..., None].expand_as(x[:, E:])  # (B, V, D)
        blank = self.blank.to(x.dtype).expand(x.shape[0], h * w, -1)
        x = torch.cat([x[:, :E], blank.scatter(1, index, x[:, E:])], 1)  # (B, E + L, D)
        x = self.decoder(x, positions=grid_positions(self.grid, E, x))
        return self.paint(x[:, E:])

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        return Loss.of(self.metrics(predictions, batch)["loss"].sum(), len(predictions))

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        error = (predictions.float() - self.targets(batch["images"])).square().mean(-1)  # (B, L)
        hidden = torch.ones_like(error).scatter(1, self.visible(batch["noise"]), 0.0)
        return {"loss": (error * hidden).sum(1) / hidden.sum(1)}

    def visible(self, noise: Tensor) -> Tensor:
        """The numbers of the patches that are seen, (B, V), in order: those whose first pixel has the least noise."""
        p = self.config.patch_size
        return noise[:, ::p, ::p].flatten(1).argsort(dim=1, stable=True)[:, : self.seen].sort(1).values

    def masked(self, images: Tensor, noise: Tensor, instead: Tensor) -> Tensor:
        """The images, and something else where a patch is hidden."""
        seen, (h, w), p = self.visible(noise), self.grid, self.config.patch_size
        shown = torch.zeros(seen.shape[0], h * w, dtype=torch.bool, device=seen.device).scatter(1, seen, True)
        shown = shown.view(-1, 1, h, w).repeat_interleave(p, 2).repeat_interleave(p, 3)  # (B, 1, Y, X)
        return torch.where(shown, images, instead)

    def targets(self, images: Tensor) -> Tensor:
        """Patches (B, L, P), each less its mean and over its deviation: a contour counts as much in the dark."""
        patches, mean, deviation = self.patches(images)
        return (patches - mean) / deviation

    def patches(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, L, P), and the mean and deviation of each, (B, L, 1)."""
        p = self.config.patch_size
        patches = F.unfold((images - self.mean) / self.std, p, stride=p).mT
        variance, mean = torch.var_mean(patches, -1, correction=0, keepdim=True)
        return patches, mean, (variance + EPS).sqrt()

    @torch.inference_mode()
    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is seen of the images, and the same with the rest painted in: (B, C, Y, X) in [0, 1] each.

        A painted patch gets the mean and the deviation of the true one, which the model is not asked for.
        """
        images, noise, p = batch["images"], batch["noise"], self.config.patch_size
        _, mean, deviation = self.patches(images)
        painted = self(batch).float() * deviation + mean  # (B, L, P)
        painted = F.fold(painted.mT, images.shape[2:], p, stride=p) * self.std + self.mean  # (B, C, Y, X)
        return self.masked(images, noise, self.mean), self.masked(images, noise, painted.clamp(0, 1))
