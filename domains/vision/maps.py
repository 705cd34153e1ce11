"""Which patches a prediction drew on, as maps.

    seen = look(adapter, images)
    on_patches(adapter, rollout(seen.attention))                            # through all blocks
    on_patches(adapter, gradient_rollout(seen.attention, seen.gradient))    # for the class that was predicted
    on_patches(adapter, seen.attention[-1])                                 # of each head of the last block

Shapes: B batch · C channels · Y, X pixels · h, w patches along a side · L tokens · H heads · D head width · K classes
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.config import HAS_ATTENTION_MAPS
from core.maps import gradient_rollout, rollout
from core.probe import Probe
from domains.vision.adapter import Adapter
from domains.vision.config import Pool


class Seen(NamedTuple):
    """What one pass shows of the attention in each block, first block first."""

    logits: Tensor  # (B, K)
    attention: list[Tensor]  # (B, H, L, L)
    gradient: list[Tensor]  # (B, H, L, L): of a class's logit, by the attention


def can_look(adapter: Adapter) -> bool:
    """Whether its mixer has attention to look at."""
    return adapter.config.mixer in HAS_ATTENTION_MAPS


def look(adapter: Adapter, images: Float[Tensor, "B C Y X"], classes: Int[Tensor, " B"] | None = None) -> Seen:
    """Attention in all blocks, and the gradient of a class's logit by it.

        heads = A v,   so   ∂logit/∂A = ∂logit/∂heads vᵀ        exact, and the fused kernels still run

    Args:
        images: in [0, 1].
        classes: whose logits; the predicted ones if None.
    Raises:
        ValueError: if the mixer has no attention.
    """
    if not can_look(adapter):
        possible = ", ".join(mixer.value for mixer in HAS_ATTENTION_MAPS)
        raise ValueError(f"model.mixer={adapter.config.mixer.value} has no attention to look at; possible: {possible}")
    adapter.eval()
    heads = []

    def keep(value: Tensor) -> Tensor:
        heads.append(value)
        return value

    probe = Probe("*.attention", "*.v", edit={"*.heads": keep})
    with torch.inference_mode(False), torch.enable_grad():  # validation loops switch gradients off
        start = images.detach().clone().requires_grad_()  # so that there is a gradient where all weights are frozen
        logits = adapter({"images": start}, probe=probe)  # (B, K)
        chosen = logits.argmax(-1) if classes is None else classes
        slopes = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), heads)  # (B, H, L, D) each
    gradient = []
    for number, slope in enumerate(slopes):
        v = probe[f"{number}.v"]  # (B, G, L, D)
        gradient.append(slope @ v.repeat_interleave(slope.shape[1] // v.shape[1], dim=1).mT)
    return Seen(logits.detach(), probe.attention, gradient)


def on_patches(adapter: Adapter, flow: Float[Tensor, "*B L L"]) -> Float[Tensor, "*B h w"]:
    """What the pooled image draws on each patch, from what each token (row) draws on each token (column).

    The row of the class token where that is pooled, otherwise the mean over the patches' rows. Columns of the class
    token and of registers are left out.
    """
    rows = flow[..., :1, :] if adapter.config.pool is Pool.token else flow[..., adapter.extra :, :]
    return rows.mean(-2)[..., adapter.extra :].unflatten(-1, adapter.grid)


def all_maps(adapter: Adapter, images: Float[Tensor, "B C Y X"]) -> dict[str, Float[Tensor, "B h w"]]:
    """Rollout, gradient-weighted rollout for the predicted class, and each head of the last block, by name.

    One image after the other: the attention of all blocks takes far more memory than the maps.
    """
    maps: dict[str, list[Tensor]] = {}
    for image in images.split(1):
        _, attention, gradient = look(adapter, image)
        flows = {"rollout": rollout(attention), "gradient": gradient_rollout(attention, gradient)}
        flows |= {f"head {number}": head for number, head in enumerate(attention[-1].unbind(1), 1)}
        for name, flow in flows.items():
            maps.setdefault(name, []).append(on_patches(adapter, flow))
    return {name: torch.cat(parts) for name, parts in maps.items()}
