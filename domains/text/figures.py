"""The figure of a language model: its training curves, and a sample."""

from textwrap import wrap

from matplotlib.figure import Figure


def picture(
    curves: dict[str, list[tuple[int, float]]], score: float, xz: float, split: str, prompt: str, sample: str
) -> Figure:
    """Draw curves in bits per byte beside the scores on `split`, above a sample that continues `prompt`."""
    figure = Figure(figsize=(8.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 0.8))
    for (name, points), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        if points:
            above.plot(*zip(*points, strict=True), color=colour, label=name, marker=".")
    above.axhline(score, color="tab:green", label=f"this model, {split} split: {score:.3f}")
    above.axhline(xz, color="black", linestyle="--", label=f"xz -9, {split} split: {xz:.3f}")
    above.set_title("Predicting text that was held out")
    above.set(xlabel="step", ylabel="bits per byte", xlim=(0, None), ylim=(0, None))
    above.legend(frameon=False)
    above.spines[["top", "right"]].set_visible(False)
    below.axis("off")
    below.set_title(
        f"Written by the model after “{_block(prompt, 80, 1).rstrip()}”", fontsize=10, loc="left", parse_math=False
    )
    below.text(
        0.0, 0.98, _block(sample, 96, 15), transform=below.transAxes, va="top", family="monospace", fontsize=8,
        parse_math=False, bbox={"boxstyle": "round,pad=0.6", "facecolor": "whitesmoke", "edgecolor": "lightgrey"},
    )  # fmt: skip
    return figure


def _block(text: str, width: int, height: int) -> str:
    """Return the text as at most `height` lines of `width` characters, without characters that no font has."""
    shown = "".join(c if c.isprintable() or c == "\n" else "·" for c in text)
    lines = [piece for line in shown.splitlines() for piece in wrap(line, width, replace_whitespace=False) or [""]]
    return "\n".join(line.ljust(width) for line in lines[:height])
