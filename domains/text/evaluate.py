"""How well unseen text is predicted, beside a compressor that knows the same text."""

import csv
import lzma
from math import log
from pathlib import Path

import numpy as np
import torch

from domains.adapter import Evaluation, Score, to_device
from domains.text.adapter import Adapter
from domains.text.data import Data
from domains.text.figures import picture
from domains.text.generate import Sampling, generate


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Bits per byte of a split, every byte predicted once: windows of `data.context` bytes, moved on by half of that.

    The baseline is xz at its strongest setting on the same bytes, primed with all text before them: what they add to
    the compressed size of that text. The model has read the training part, and recalls whatever stands before a byte.

    Writes language.png (curves of the run whose folder holds `folder`, if it has a metrics.csv, above a sample),
    sample.txt and topics.csv (bits per byte of each topic in the split, model and xz).

    Raises:
        ValueError: for a split other than val and test.
    """
    if split not in ("val", "test"):
        raise ValueError(f"text is evaluated on split=val or split=test, not on {split!r}")
    folder.mkdir(parents=True, exist_ok=True)
    bits = bits_per_byte(adapter, data, split)
    begin, end = data.bounds[split]
    rows = by_topic(bits, data, split)
    xz = xz_bits(data, begin, end) / (end - begin)
    with (folder / "topics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["topic", "bytes", "bits_per_byte", "xz_bits_per_byte"])
        writer.writerows([name, size, f"{ours:.4f}", f"{theirs:.4f}"] for name, size, ours, theirs in rows)

    prompt = heading(data, split)
    sample = bytes(generate(adapter, prompt, Sampling())).decode(errors="replace")
    title = prompt.decode(errors="replace")
    (folder / "sample.txt").write_text(title + sample, encoding="utf-8")
    figure = picture(read_curves(folder.parent / "metrics.csv"), float(bits.mean()), xz, split, title, sample)
    figure.savefig(folder / "language.png", dpi=120)
    return Evaluation(
        scores=[Score("bits per byte", float(bits.mean()), "xz -9, primed with the text before", xz)],
        measures={
            "bits_per_byte": float(bits.mean()),
            "loss": float(bits.mean() * log(2)),
            "xz_bits_per_byte": xz,
            "bytes": end - begin,
            "context": adapter.context,
            "stride": adapter.context // 2,
            "topics": {name: ours for name, _, ours, _ in rows},
        },
        figures=[folder / "language.png"],
    )


@torch.inference_mode()
def bits_per_byte(adapter: Adapter, data: Data, split: str) -> np.ndarray:
    """What each byte of a split costs, in order."""
    adapter.eval()
    parts = []
    for batch in data.eval_dataloader(split):
        batch = to_device(batch, adapter.device)
        parts.append(adapter.measure(adapter(batch), batch)["bits_per_byte"].double().cpu())
    return torch.cat(parts).numpy()


def by_topic(bits: np.ndarray, data: Data, split: str) -> list[tuple[str, int, float, float]]:
    """(name, bytes, bits per byte, xz's bits per byte) of each topic, as far as it lies in the split."""
    first, last = data.bounds[split]
    rows = []
    for name, begin, end in data.topics:
        begin, end = max(begin, first), min(end, last)
        if begin < end:
            xz = xz_bits(data, begin, end) / (end - begin)
            rows.append((name, end - begin, float(bits[begin - first : end - first].mean()), xz))
    return rows


def heading(data: Data, split: str) -> bytes:
    """The first paragraph of the first topic that begins in the split."""
    begin, end = data.bounds[split]
    start = next((at for _, at, _ in data.topics if begin <= at < end), begin)
    paragraph, blank, _ = data.text[start:end].tobytes().partition(b"\n\n")
    return paragraph + blank


def xz_bits(data: Data, begin: int, end: int) -> int:
    """What the bytes from begin to end add to the size of all text before them under `xz -9`, in bits."""
    before, whole = (len(lzma.compress(data.text[:n].tobytes(), preset=9)) for n in (begin, end))
    return 8 * (whole - before)


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Loss by step, in bits per byte, from a run's metrics.csv; empty where there is none."""
    curves: dict[str, list[tuple[int, float]]] = {"training": [], "validation": []}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, column in (("training", "train/loss"), ("validation", "val/loss")):
                    if row.get(column):
                        curves[name].append((int(row["step"]) + 1, float(row[column]) / log(2)))
    return curves
