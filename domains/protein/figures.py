"""Figures of contact maps and their precision.

Shapes: L residues
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from domains.protein.metrics import CONTACT, LONG_RANGE, best

HIT, MISS = "tab:green", "tab:red"
UNSEEN = "0.85"  # a light grey


class Panel(NamedTuple):
    """One chain: P(contact) (L, L), and the distances (L, L) in Å if known; NaN for unresolved residues."""

    title: str
    probability: np.ndarray
    distance: np.ndarray | None = None


def contact_maps(path: Path, panels: Sequence[Panel], columns: int = 3) -> Path:
    """Draw P(contact) in blue. If distances are known, the contacts are below the diagonal in black and unresolved
    residues in grey; above it, the L/5 most likely long-range pairs are dots, green for contacts and red for others."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.9, 3.7 * rows + 0.5), layout="constrained", dpi=120)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):  # the last row may have fewer panels
        draw(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    known = [panel.distance for panel in panels if panel.distance is not None]
    if known:
        grey = " (grey: not seen)" if any(np.isnan(distance).any() for distance in known) else ""
        gap = " " if columns > 1 else "\n"
        told = f"Above the diagonal: P(contact), and the L/5 pairs of highest score;{gap}below: the true contacts{grey}"
        figure.suptitle(told, fontsize=12 if columns > 1 else 9)
        figure.legend(
            handles=[
                axes[0].scatter([], [], color=c, s=12, label=n) for c, n in ((HIT, "contact"), (MISS, "no contact"))
            ],
            loc="outside lower right",
            ncols=2,
            frameon=False,
        )
    axes[(rows - 1) * columns].set_xlabel(f"residue; dotted: {LONG_RANGE} apart, where long range begins", fontsize=9)
    figure.colorbar(axes[0].images[0], ax=axes.tolist(), label="P(Cβ–Cβ < 8 Å)", shrink=0.6)
    figure.savefig(path)
    return path


def draw(axis: Axes, panel: Panel) -> None:
    length = len(panel.probability)
    extent = (0.5, length + 0.5, length + 0.5, 0.5)  # residues are counted from 1
    shown = panel.probability if panel.distance is None else np.triu(panel.probability, 1)
    faint_too = PowerNorm(0.5, vmin=0, vmax=1)  # most contacts are predicted with a probability far below 1
    axis.imshow(shown, cmap="Blues", norm=faint_too, extent=extent, interpolation="nearest")
    if panel.distance is not None:
        shade = np.where(np.isnan(panel.distance), float(UNSEEN), np.where(panel.distance < CONTACT, 0.0, np.nan))
        below = np.ma.masked_invalid(np.where(np.tri(length, k=-1, dtype=bool), shade, np.nan))
        axis.imshow(below, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        i, j = best(panel.probability, panel.distance, 5)
        axis.scatter(j + 1, i + 1, s=5, c=np.where(panel.distance[i, j] < CONTACT, HIT, MISS), linewidths=0)
    for offset in (-LONG_RANGE, LONG_RANGE):
        axis.axline((0.5, 0.5 + offset), slope=1, color="tab:orange", linewidth=0.6, linestyle=":")
    axis.set(xlim=extent[:2], ylim=extent[2:])
    axis.set_title(panel.title, fontsize=10)


def precision_bars(path: Path, precisions: dict[str, Sequence[float]], cuts: Sequence[str]) -> Path:
    """Draw the mean long-range precision of each method at each cut."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained", dpi=120)
    axis = figure.subplots()
    width = 0.8 / len(precisions)
    for number, (method, values) in enumerate(precisions.items()):
        at = np.arange(len(cuts)) + (number - (len(precisions) - 1) / 2) * width
        bars = axis.bar(at, values, width, label=method)
        axis.bar_label(bars, fmt="%.2f", fontsize=8, padding=1)
    axis.set(xticks=range(len(cuts)), xticklabels=cuts, ylabel="long-range precision, mean over chains")
    axis.set_xlabel("pairs of highest score that are taken, for a chain of L residues")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path)
    return path
