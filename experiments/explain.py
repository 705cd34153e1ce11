"""`attend explain`: one HTML page on which a person looks into the attention of a trained run.

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
from experiments.environment import environment
from experiments.report.explorer import write_explorer
from experiments.runs import load_run, make_data
from experiments.terminal import terminal, waiting
from experiments.untrusted import load_domain

AT_ONCE = 8  # copies of an example in one pass


def run(config: DictConfig) -> None:
    """Writes explain.html into `config.output`."""
    path = Path(config.output) / "explain.html"
    with waiting("looking into the attention …"), record_data_warnings() as data_warnings:
        found = explained(Path(config.run), config.input)
    write_explorer(path, {"runs": [found], "data_warnings": data_warnings, **environment()})
    terminal().print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")


def explained(folder: Path, source: str | None = None) -> dict[str, Any]:
    """What the page says of a run: of an input, or of an example out of its own test split.

    Raises:
        ValueError: if the run's mixer has no attention maps, its domain cannot read the input, or the split is empty.
    """
    saved, adapter = load_run(folder)
    mixer = adapter.transformer.config.mixer
    if mixer not in HAS_ATTENTION_MAPS:
        able = ", ".join(other.value for other in HAS_ATTENTION_MAPS)
        raise ValueError(f"model.mixer={mixer.value} has no attention maps to explain; possible: {able}")
    explain = load_domain(saved.domain.package).explain
    if explain is None:
        raise ValueError(f"domain={saved.domain.name} has nothing that explains a run of it")
    if source is not None:
        explanations = explain.explanations(adapter, source)
    else:
        data = make_data(saved)
        data.eval_dataloader("test")  # complains of an empty split
        explanations = [explain.example(adapter, data)]
    about = {"run": str(folder), "domain": saved.domain.name, "mixer": mixer.value}
    return about | {"scenes": [look(adapter, explanation) for explanation in explanations]}


@torch.inference_mode()
def look(adapter: DomainAdapter, explanation: Explanation) -> dict[str, Any]:
    """A scene as plain values: its maps, what they say, and what removing a head or an element really does."""
    probe = Probe("*.attention")
    whole = said(adapter, explanation, probe=probe)  # (1, N, K)
    attention = [weights.float() for weights in probe.attention]  # (1, H, L, L) each
    L = attention[0].shape[-1]
    assert len(explanation.elements) == L
    elements = effects(whole, L, lambda removed: without_elements(adapter, explanation, removed))  # (L,)
    maps, seen = [], visible(adapter, explanation)
    for n, weights in enumerate(attention):
        heads = effects(whole, weights.shape[1], partial(without_heads, adapter, explanation, n))  # (H,)
        found = statistics(weights[0], seen)  # (H,) each
        for h, one in enumerate(weights[0]):
            known = {"effect": round4(heads[h]), **{name: round4(values[h]) for name, values in found.items()}}
            maps.append({"layer": n + 1, "head": str(h + 1), **packed(one, elements), **known})
        maps.append({"layer": n + 1, "head": "mean", **packed(weights[0].mean(0), elements)})
        maps.append({"layer": n + 1, "head": "rollout", **packed(rollout(attention[: n + 1])[0], elements)})
    return {
        "name": explanation.name,
        "form": explanation.form.value,
        "about": explanation.about,
        "answers": explanation.answers,
        "elements": [vars(element) for element in explanation.elements],
        "pictures": [{"png": base64.b64encode(p.png).decode(), "alt": p.alt} for p in explanation.pictures],
        "effects": [round4(effect) for effect in elements],
        "maps": maps,
    }


def said(
    adapter: DomainAdapter, explanation: Explanation, copies: int = 1, hide: Mask = NoMask(), probe: Probe | None = None
) -> Tensor:
    """What the model says of some copies of a scene, (B, N, K)."""
    batch = {name: tensor.expand(copies, *tensor.shape[1:]) for name, tensor in explanation.batch.items()}
    return explanation.distribution(adapter(batch, mask=hide, probe=probe)).float()


def without_heads(adapter: DomainAdapter, explanation: Explanation, layer: int, removed: Tensor) -> Tensor:
    """The same (B, N, K), with head removed[b] of a layer set to 0 in copy b."""

    def silence(heads: Tensor) -> Tensor:
        others = removed.to(heads.device)[:, None] != torch.arange(heads.shape[1], device=heads.device)  # (B, H)
        return heads * others[..., None, None]

    return said(adapter, explanation, len(removed), probe=Probe(edit={f"{layer}.heads": silence}))


def without_elements(adapter: DomainAdapter, explanation: Explanation, removed: Tensor) -> Tensor:
    """The same (B, N, K), with element removed[b] hidden in copy b, in every layer, from all others but itself."""
    removed = removed.to(adapter.device)
    others = removed[:, None] != torch.arange(len(explanation.elements), device=adapter.device)  # (B, L)
    return said(adapter, explanation, len(removed), hide=Padding(others) | Window(0))


def effects(whole: Tensor, count: int, without: Callable[[Tensor], Tensor]) -> Tensor:
    """How far the predictions move when one thing is removed, for each of `count` things, (count,).

    ½ Σ_k |p_nk - p'_nk|,   the mean over n: the total variation distance, from 0 to 1
    """
    parts = [without(removed) for removed in torch.arange(count).split(AT_ONCE)]
    return torch.cat([0.5 * (part - whole).abs().sum(-1).mean(-1) for part in parts])


def visible(adapter: DomainAdapter, explanation: Explanation) -> Tensor:
    """Which keys each query may see, (L, L)."""
    block, L = adapter.transformer.blocks[0], len(explanation.elements)
    assert isinstance(block, TransformerBlock)
    assert isinstance(block.mixer, MultiHeadAttention)
    mask = adapter.tokens(explanation.batch).mask & block.mixer.window_mask
    return mask.dense(1, 1, L, L, adapter.device)[0, 0].expand(L, L)


def packed(weights: Tensor, elements: Tensor) -> dict[str, Any]:
    """A map (L, L) in bytes, of which 255 is its largest number; what each element gets, and whether that goes with
    what its removal does: Spearman's correlation, None where one of the two is the same for all."""
    got, top = received(weights), float(weights.max())
    alike = got.unique().numel() == 1 or elements.unique().numel() == 1
    return {
        "top": top,
        "weights": base64.b64encode((weights * (255 / top)).round().byte().cpu().numpy().tobytes()).decode(),
        "received": [round4(share) for share in got],
        "correlation": None if alike else round4(spearmanr(got.cpu(), elements.cpu())[0]),
    }


def round4(value: Any) -> float:
    """To four significant digits: a page need not carry more."""
    return float(f"{float(value):.4g}")
