"""Bits per byte on held-out text, beside a compressor that has the same text.

Shapes: N tokens of a split · V vocabulary
"""

import csv
import lzma
from math import exp, log
from pathlib import Path

import numpy as np
import torch

from domains.adapter import Evaluation, Score, to_device
from domains.text.adapter import Adapter
from domains.text.data import Data
from domains.text.figures import picture
from domains.text.generate import Sampling, generate_text
from domains.text.tokenizers import DOCUMENT_SEPARATOR

MAX_PRIMING_TOKENS = (
    2**22
)  # tokens before a split, and half as many bytes of it, that xz is given at most, for the sake of time
MAX_DOCUMENT_ROWS = 100  # documents of a split at most that get a line each


def evaluate(adapter: Adapter, data: Data, folder: Path, split: str = "test") -> Evaluation:
    """Measure the loss on a whole split, every token predicted once: windows of `data.context` tokens, `data.stride`
    apart.

        nats per token = -1/N Σ ln p(token),  perplexity = exp of that,  bits per byte = Σ nats / (ln 2 · Σ bytes)

    Bits per byte compare tokenizers; the other two are for one tokenizer alone.

    The baseline is xz -9 on the same text, primed with the text before it: what the split adds to
    the compressed size of that. Of long texts it is the first part of the split, beside the model's bits on that part.

    Writes language.png (curves of the run whose folder holds `folder`, if it has a metrics.csv, above a sample),
    sample.txt and documents.csv (bits per byte of each document in the split, if they are not too many).

    Raises:
        ValueError: for a split other than val and test, or data whose tokens are not those that the model was trained
            on.
    """
    if split not in ("val", "test"):
        raise ValueError(f"text is evaluated on split=val or split=test, not on {split!r}")
    check_tokenizer(adapter, data)
    folder.mkdir(parents=True, exist_ok=True)
    nats = nats_per_token(adapter, data, split)  # (N,)
    begin, end = data.bounds[split]
    bytes_per_token = data.corpus.bytes_per_token[data.corpus.tokens[begin:end]]  # (N,)
    bytes_of_text = data.corpus.split_bytes[split]
    original = float(bytes_per_token.sum() / bytes_of_text)  # 1, unless the tokenizer changes the text
    bits = float(nats.sum() / log(2) / bytes_per_token.sum()) * original
    part, xz = primed_xz(data, begin, end)
    ours = float(nats[:part].sum() / log(2) / bytes_per_token[:part].sum()) * original
    write_documents(folder / "documents.csv", nats, bytes_per_token, data, split)
    prompt = sample_prompt(data, split)
    sample = generate_text(adapter, [prompt], Sampling()).texts[0]
    (folder / "sample.txt").write_text(prompt + sample, encoding="utf-8")
    curves = read_curves(folder.parent / "metrics.csv", len(bytes_per_token) / bytes_per_token.sum())
    figure = picture(curves, bits, xz, split, prompt, sample)
    figure.savefig(folder / "language.png", dpi=120)
    return Evaluation(
        scores=[Score("bits per byte", ours, "xz -9, primed with the text before", xz, lower_is_better=True)],
        metrics={
            "bits_per_byte": bits,
            "loss": float(nats.mean()),
            "perplexity": exp(nats.mean()),
            "xz_bits_per_byte": xz,
            "tokens": end - begin,
            "bytes": bytes_of_text,
            "context": adapter.context,
            "stride": data.stride,
            **({"lines_changed_by_tokenizer": data.corpus.changed_lines[0]} if data.corpus.changed_lines[0] else {}),
        },
        figures=[folder / "language.png"],
    )


@torch.inference_mode()
def nats_per_token(adapter: Adapter, data: Data, split: str) -> np.ndarray:
    """Return the loss of each token of a split, in order."""
    adapter.eval()
    parts = []
    for batch in data.eval_dataloader(split):
        batch = to_device(batch, adapter.device)
        parts.append(adapter.metrics(adapter(batch), batch)["loss"].double().cpu())
    return torch.cat(parts).numpy()


def check_tokenizer(adapter: Adapter, data: Data) -> None:
    """Raise ValueError if the data have another tokenizer than the model."""
    if adapter.tokenizer is None or adapter.tokenizer.spec() != data.corpus.tokenizer.spec():
        raise ValueError("the data have another tokenizer than the model: they have changed since it was trained")


def write_documents(path: Path, nats: np.ndarray, bytes_per_token: np.ndarray, data: Data, split: str) -> None:
    """Write (document, bytes, bits per byte) of each document within the split; nothing if a document has no name."""
    first, last = data.bounds[split]
    starts = data.corpus.document_starts
    chosen = range(max(0, int(starts.searchsorted(first, "right")) - 1), int(starts.searchsorted(last)))
    if len(chosen) > MAX_DOCUMENT_ROWS or chosen.stop > len(data.corpus.document_names):
        return
    ends = [*starts[1:].tolist(), last]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["document", "bytes", "bits_per_byte"])
        for n in chosen:
            part = slice(max(int(starts[n]), first) - first, min(ends[n], last) - first)
            size = bytes_per_token[part].sum()
            writer.writerow([data.corpus.document_names[n], size, f"{nats[part].sum() / log(2) / size:.4f}"])


def sample_prompt(data: Data, split: str) -> str:
    """Return the first paragraph of the first document that begins in the split, or of the split; at most a context."""
    start = data.first_document_start(split)
    text = data.corpus.text(start, min(start + data.config.context, data.bounds[split][1]))
    paragraph, blank, _ = text.lstrip(DOCUMENT_SEPARATOR).partition("\n\n")
    return paragraph + blank


def primed_xz(data: Data, begin: int, end: int) -> tuple[int, float]:
    """Return how many tokens from `begin` were compressed, and the bits per byte that they add to the text before."""
    bytes_per_token = data.corpus.bytes_per_token[data.corpus.tokens[begin : min(end, begin + MAX_PRIMING_TOKENS)]]
    part = int(bytes_per_token.cumsum().searchsorted(MAX_PRIMING_TOKENS // 2, "right"))
    before = data.corpus.text(max(0, begin - MAX_PRIMING_TOKENS), begin).encode()
    own = data.corpus.text(begin, begin + part).encode()
    primed, whole = (len(lzma.compress(text, preset=9)) for text in (before, before + own))
    return part, 8 * (whole - primed) / len(own)


def read_curves(path: Path, tokens_a_byte: float = 1.0) -> dict[str, list[tuple[int, float]]]:
    """Return the loss by step, in bits per byte, from a run's metrics.csv; empty curves if there is none."""
    curves: dict[str, list[tuple[int, float]]] = {"training": [], "validation": []}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, column in (("training", "train/loss"), ("validation", "val/loss")):
                    if row.get(column):
                        curves[name].append((int(row["step"]) + 1, float(row[column]) / log(2) * tokens_a_byte))
    return curves
