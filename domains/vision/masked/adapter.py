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

# They do not depend on the order of tokens; the others count neighbours:
SUPPORTED_MIXERS = (Mixer.softmax, Mixer.linear, Mixer.performer)
EPS = 1e-6  # added to the variance of a patch


class Adapter(vision.Adapter):
    """A masked autoencoder: the ViT encodes a few patches of an image; a smaller Transformer reconstructs the rest.

        loss = mean over masked patches of |reconstructed - standardised|² / P

    The ViT runs on the visible patches alone. Masked patches are set to the mean of the pixels before the embedding: a
    convolutional stem reads beyond a patch.

    Source: He et al. 2022, "Masked autoencoders are scalable vision learners".

    Args:
        config: the ViT, `mask_ratio`, and the decoder.
        position: the position encoding of the ViT's patches; the decoder's is sinusoidal.
        spec: as of a ViT.
    Raises:
        ValueError: if no patch or all would be masked, for a mixer that cannot leave patches out, or patches of a
            single number.
    """

    metric_names = ("loss",)

    def __init__(self, config: ModelConfig, position: PositionConfig, spec: dict[str, Any]):
        super().__init__(config, position, spec)
        c, channels, p = config, self.image_shape[0], config.patch_size
        patches = self.grid[0] * self.grid[1]
        num_masked = round(c.mask_ratio * patches)
        if not 0 < num_masked < patches:
            raise ValueError(
                f"model.mask_ratio={c.mask_ratio} hides {num_masked} of {patches} patches; hide some and leave some"
            )
        self.num_visible = patches - num_masked
        if c.mixer not in SUPPORTED_MIXERS:
            possible = ", ".join(mixer.value for mixer in SUPPORTED_MIXERS)
            raise ValueError(f"model.mixer={c.mixer.value} counts neighbours, and most are left out; use {possible}")
        if channels * p * p < 2:
            raise ValueError("a patch of one number cannot be standardised; set model.patch_size to 2 or more")
        del self.classifier  # no labels here
        self.attn_pool = None
        self.decoder_embed = nn.Linear(c.dim, c.decoder.dim)
        self.mask_token = nn.Parameter(torch.randn(c.decoder.dim) * 0.02)
        self.decoder = Transformer(c.decoder, Sinusoidal(c.decoder.dim, axes=2))
        self.decoder_pred = nn.Linear(c.decoder.dim, channels * p * p)

    def tokens(self, batch: Batch) -> Tokens:
        indices, E = self.visible_indices(batch["noise"]), self.num_prefix_tokens  # (B, V)
        visible = {"images": self.apply_mask(batch["images"], batch["noise"], self.mean)}
        tokens = super().tokens(visible)  # (B, E + L, W)
        assert tokens.positions is not None
        index = F.pad(indices + E, (E, 0))  # (B, E + V)
        index[:, :E] = torch.arange(E, device=index.device)
        x = tokens.x.gather(1, index[..., None].expand(-1, -1, tokens.x.shape[2]))  # (B, E + V, W)
        return Tokens(x, positions=tokens.positions[index])

    def head(self, hidden: Tensor, tokens: Tokens) -> Tensor:
        """Return every patch as the decoder predicts it, (B, L, P)."""
        assert tokens.positions is not None
        E, (h, w) = self.num_prefix_tokens, self.grid
        x = self.decoder_embed(self.fc_norm(hidden))  # (B, E + V, D)
        row, column = tokens.positions[:, E:].unbind(-1)
        index = (row * w + column)[..., None].expand_as(x[:, E:])  # (B, V, D)
        mask_tokens = self.mask_token.to(x.dtype).expand(x.shape[0], h * w, -1)
        x = torch.cat([x[:, :E], mask_tokens.scatter(1, index, x[:, E:])], 1)  # (B, E + L, D)
        x = self.decoder(x, positions=grid_positions(self.grid, E, x))
        return self.decoder_pred(x[:, E:])

    def loss(self, predictions: Tensor, batch: Batch) -> Loss:
        return Loss.of(self.metrics(predictions, batch)["loss"].sum(), len(predictions))

    def metrics(self, predictions: Tensor, batch: Batch) -> dict[str, Tensor]:
        error = (predictions.float() - self.targets(batch["images"])).square().mean(-1)  # (B, L)
        masked = torch.ones_like(error).scatter(1, self.visible_indices(batch["noise"]), 0.0)
        return {"loss": (error * masked).sum(1) / masked.sum(1)}

    def visible_indices(self, noise: Tensor) -> Tensor:
        """Return the indices of the visible patches, (B, V), in order: those whose first pixel has the least noise."""
        p = self.config.patch_size
        return noise[:, ::p, ::p].flatten(1).argsort(dim=1, stable=True)[:, : self.num_visible].sort(1).values

    def apply_mask(self, images: Tensor, noise: Tensor, fill: Tensor) -> Tensor:
        """Return the images, with `fill` in masked patches."""
        indices, (h, w), p = self.visible_indices(noise), self.grid, self.config.patch_size
        visible = torch.zeros(indices.shape[0], h * w, dtype=torch.bool, device=indices.device).scatter(
            1, indices, True
        )
        visible = visible.view(-1, 1, h, w).repeat_interleave(p, 2).repeat_interleave(p, 3)  # (B, 1, Y, X)
        return torch.where(visible, images, fill)

    def targets(self, images: Tensor) -> Tensor:
        """Return patches (B, L, P), each standardised by its own mean and deviation: contrast does not matter."""
        patches, mean, deviation = self.patchify(images)
        return (patches - mean) / deviation

    def patchify(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return patches (B, L, P), and the mean and deviation of each, (B, L, 1)."""
        p = self.config.patch_size
        patches = F.unfold((images - self.mean) / self.std, p, stride=p).mT
        variance, mean = torch.var_mean(patches, -1, correction=0, keepdim=True)
        return patches, mean, (variance + EPS).sqrt()

    @torch.inference_mode()
    def reconstruct(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the visible part of the images, and the same with reconstructed patches: (B, C, Y, X) in [0, 1] each.

        A reconstructed patch gets the mean and the deviation of the true one, which the model does not predict.
        """
        images, noise, p = batch["images"], batch["noise"], self.config.patch_size
        _, mean, deviation = self.patchify(images)
        reconstructed = self(batch).float() * deviation + mean  # (B, L, P)
        reconstructed = F.fold(reconstructed.mT, images.shape[2:], p, stride=p) * self.std + self.mean  # (B, C, Y, X)
        return self.apply_mask(images, noise, self.mean), self.apply_mask(images, noise, reconstructed.clamp(0, 1))
