"""`attend explain`: one HTML page that shows the attention of a trained run.

Shapes: B copies of one example · H heads · L elements · N predictions · K outcomes of each
"""

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from scipy.stats import spearmanr
from torch import Tensor

from core.config import HAS_ATTENTION_MAPS
from core.layers import TransformerBlock
from core.maps import received, rollout, statistics
from core.masks import Mask, NoMask, Padding, Window
from core.mixers.softmax import MultiHeadAttention
from core.probe import Probe
from domains.adapter import DomainAdapter
from domains.data_warnings import record_data_warnings
from domains.explanation import Explanation
from experiments.console import make_console, spinner
from experiments.environment import environment
from experiments.report.explorer import write_explorer
from experiments.runs import load_run, make_data
from experiments.untrusted import load_domain

BATCH_SIZE = 8  # copies of an example in one pass


def run(config: DictConfig) -> None:
    """Write explain.html to `config.output`."""
    path = Path(config.output) / "explain.html"
    with spinner("looking into the attention …"), record_data_warnings() as data_warnings:
        entropies = explain_run(Path(config.run), config.input)
    write_explorer(path, {"runs": [entropies], "data_warnings": data_warnings, **environment()})
    make_console().print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")


def explain_run(folder: Path, source: str | None = None) -> dict[str, Any]:
    """Return the page's data for an input, or for an example of the run's own test split.

    Raises:
        ValueError: if the mixer has no attention maps, the domain cannot read the input, or the split is empty.
    """
    config, adapter = load_run(folder)
    mixer = adapter.transformer.config.mixer
    if mixer not in HAS_ATTENTION_MAPS:
        able = ", ".join(other.value for other in HAS_ATTENTION_MAPS)
        raise ValueError(f"model.mixer={mixer.value} has no attention maps to explain; possible: {able}")
    explain = load_domain(config.domain.package).explain
    if explain is None:
        raise ValueError(f"domain={config.domain.name} has nothing that explains a run of it")
    if source is not None:
        explanations = explain.explanations(adapter, source)
    else:
        data = make_data(config)
        data.eval_dataloader("test")  # raises for an empty split
        explanations = [explain.example(adapter, data)]
    about = {"run": str(folder), "domain": config.domain.name, "mixer": mixer.value}
    return about | {"examples": [explain_example(adapter, explanation) for explanation in explanations]}


@torch.inference_mode()
def explain_example(adapter: DomainAdapter, explanation: Explanation) -> dict[str, Any]:
    """Return an example as plain values: its attention maps, their statistics, and the effects of ablations."""
    probe = Probe("*.attention")
    prediction = predict(adapter, explanation, probe=probe)  # (1, N, K)
    attention = [weights.float() for weights in probe.attention]  # (1, H, L, L) each
    L = attention[0].shape[-1]
    assert len(explanation.elements) == L
    elements = removal_effects(prediction, L, lambda removed: ablate_elements(adapter, explanation, removed))  # (L,)
    maps, seen = [], visible_keys(adapter, explanation)
    for n, weights in enumerate(attention):
        heads = removal_effects(prediction, weights.shape[1], partial(ablate_heads, adapter, explanation, n))  # (H,)
        entropies = statistics(weights[0], seen)  # (H,) each
        for h, head_map in enumerate(weights[0]):
            scores = {
                "effect": round_to_4_digits(heads[h]),
                **{name: round_to_4_digits(values[h]) for name, values in entropies.items()},
            }
            maps.append({"layer": n + 1, "head": str(h + 1), **encode_map(head_map, elements), **scores})
        maps.append({"layer": n + 1, "head": "mean", **encode_map(weights[0].mean(0), elements)})
        maps.append({"layer": n + 1, "head": "rollout", **encode_map(rollout(attention[: n + 1])[0], elements)})
    return {
        "name": explanation.name,
        "form": explanation.form.value,
        "about": explanation.about,
        "answers": explanation.answers,
        "elements": [vars(element) for element in explanation.elements],
        "pictures": [{"png": base64.b64encode(p.png).decode(), "alt": p.alt} for p in explanation.pictures],
        "effects": [round_to_4_digits(effect) for effect in elements],
        "maps": maps,
    }


def predict(
    adapter: DomainAdapter, explanation: Explanation, copies: int = 1, mask: Mask = NoMask(), probe: Probe | None = None
) -> Tensor:
    """Return the predictions for copies of an example, (B, N, K)."""
    batch = {name: tensor.expand(copies, *tensor.shape[1:]) for name, tensor in explanation.batch.items()}
    return explanation.distribution(adapter(batch, mask=mask, probe=probe)).float()


def ablate_heads(adapter: DomainAdapter, explanation: Explanation, layer: int, removed: Tensor) -> Tensor:
    """Return the predictions (B, N, K) with head removed[b] of a layer set to 0 in copy b."""

    def zero_head(heads: Tensor) -> Tensor:
        others = removed.to(heads.device)[:, None] != torch.arange(heads.shape[1], device=heads.device)  # (B, H)
        return heads * others[..., None, None]

    return predict(adapter, explanation, len(removed), probe=Probe(edit={f"{layer}.heads": zero_head}))


def ablate_elements(adapter: DomainAdapter, explanation: Explanation, removed: Tensor) -> Tensor:
    """Return the predictions (B, N, K) with element removed[b] masked for all other elements of copy b."""
    removed = removed.to(adapter.device)
    others = removed[:, None] != torch.arange(len(explanation.elements), device=adapter.device)  # (B, L)
    return predict(adapter, explanation, len(removed), mask=Padding(others) | Window(0))


def removal_effects(prediction: Tensor, count: int, without: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the change of the predictions when each of `count` parts is ablated, (count,).

    ½ Σ_k |p_nk - p'_nk|,   the mean over n: the total variation distance, from 0 to 1
    """
    parts = [without(removed) for removed in torch.arange(count).split(BATCH_SIZE)]
    return torch.cat([0.5 * (part - prediction).abs().sum(-1).mean(-1) for part in parts])


def visible_keys(adapter: DomainAdapter, explanation: Explanation) -> Tensor:
    """Return which keys each query attends to, (L, L)."""
    block, L = adapter.transformer.blocks[0], len(explanation.elements)
    assert isinstance(block, TransformerBlock)
    assert isinstance(block.mixer, MultiHeadAttention)
    mask = adapter.tokens(explanation.batch).mask & block.mixer.window_mask
    return mask.dense(1, 1, L, L, adapter.device)[0, 0].expand(L, L)


def encode_map(weights: Tensor, elements: Tensor) -> dict[str, Any]:
    """Encode a map (L, L) as bytes, scaled so that its maximum is 255; add the weight that each element receives, and
    Spearman's correlation of that with the effect of its removal, None if one of the two is constant."""
    received_weights, top = received(weights), float(weights.max())
    constant = received_weights.unique().numel() == 1 or elements.unique().numel() == 1
    return {
        "top": top,
        "weights": base64.b64encode((weights * (255 / top)).round().byte().cpu().numpy().tobytes()).decode(),
        "received": [round_to_4_digits(share) for share in received_weights],
        "correlation": None if constant else round_to_4_digits(spearmanr(received_weights.cpu(), elements.cpu())[0]),
    }


def round_to_4_digits(value: Any) -> float:
    """Round to four significant digits, which keeps the page small."""
    return float(f"{float(value):.4g}")
