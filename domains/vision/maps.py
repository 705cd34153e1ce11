"""Maps of the patches that a prediction depends on.

    record = record_attention(adapter, images)
    to_patch_grid(adapter, rollout(record.attention))                              # through all blocks
    to_patch_grid(adapter, gradient_rollout(record.attention, record.gradient))    # for the predicted class
    to_patch_grid(adapter, record.attention[-1])                                   # of each head of the last block

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


class AttentionRecord(NamedTuple):
    """The attention of one forward pass in each block, first block first."""

    logits: Tensor  # (B, K)
    attention: list[Tensor]  # (B, H, L, L)
    gradient: list[Tensor]  # (B, H, L, L): of a class's logit, by the attention


def has_attention(adapter: Adapter) -> bool:
    """Return whether the mixer has attention weights."""
    return adapter.config.mixer in HAS_ATTENTION_MAPS


def record_attention(
    adapter: Adapter, images: Float[Tensor, "B C Y X"], classes: Int[Tensor, " B"] | None = None
) -> AttentionRecord:
    """Return the attention in all blocks, and the gradient of a class's logit by it.

        heads = A v,   so   ∂logit/∂A = ∂logit/∂heads vᵀ        exact, and the fused kernels still run

    Args:
        images: in [0, 1].
        classes: whose logits; the predicted ones if None.
    Raises:
        ValueError: if the mixer has no attention.
    """
    if not has_attention(adapter):
        possible = ", ".join(mixer.value for mixer in HAS_ATTENTION_MAPS)
        raise ValueError(f"model.mixer={adapter.config.mixer.value} has no attention to look at; possible: {possible}")
    adapter.eval()
    heads = []

    def keep(value: Tensor) -> Tensor:
        heads.append(value)
        return value

    probe = Probe("*.attention", "*.v", edit={"*.heads": keep})
    with torch.inference_mode(False), torch.enable_grad():  # validation loops switch gradients off
        inputs = images.detach().clone().requires_grad_()  # so that there is a gradient where all weights are frozen
        logits = adapter({"images": inputs}, probe=probe)  # (B, K)
        targets = logits.argmax(-1) if classes is None else classes
        grads = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), heads)  # (B, H, L, D) each
    gradient = []
    for number, grad in enumerate(grads):
        v = probe[f"{number}.v"]  # (B, G, L, D)
        gradient.append(grad @ v.repeat_interleave(grad.shape[1] // v.shape[1], dim=1).mT)
    return AttentionRecord(logits.detach(), probe.attention, gradient)


def to_patch_grid(adapter: Adapter, flow: Float[Tensor, "*B L L"]) -> Float[Tensor, "*B h w"]:
    """Return how much the pooled image depends on each patch, from how much each token (row) does on each token
    (column).

    The row of the class token if that is pooled, otherwise the mean over the patches' rows. Columns of prefix tokens
    are left out.
    """
    rows = flow[..., :1, :] if adapter.config.pool is Pool.token else flow[..., adapter.num_prefix_tokens :, :]
    return rows.mean(-2)[..., adapter.num_prefix_tokens :].unflatten(-1, adapter.grid)


def attention_maps(adapter: Adapter, images: Float[Tensor, "B C Y X"]) -> dict[str, Float[Tensor, "B h w"]]:
    """Return rollout, gradient-weighted rollout for the predicted class, and each head of the last block, by name.

    Images are processed one by one: the attention of all blocks takes far more memory than the maps.
    """
    maps: dict[str, list[Tensor]] = {}
    for image in images.split(1):
        _, attention, gradient = record_attention(adapter, image)
        flows = {"rollout": rollout(attention), "gradient": gradient_rollout(attention, gradient)}
        flows |= {f"head {number}": head for number, head in enumerate(attention[-1].unbind(1), 1)}
        for name, flow in flows.items():
            maps.setdefault(name, []).append(to_patch_grid(adapter, flow))
    return {name: torch.cat(parts) for name, parts in maps.items()}
