"""The class of CSV files of one's own."""

import csv
from pathlib import Path

import numpy as np
import torch

from sensors.data import read


@torch.inference_mode()
def predict(adapter, source, folder):
    """A CSV file, or a folder of them, to predictions.csv. Raises ValueError if there is none."""
    files = sorted(Path(source).rglob("*.csv")) if Path(source).is_dir() else [Path(source)]
    if not files:
        raise ValueError(f"{source} holds no CSV files")
    series = torch.from_numpy(np.stack([read(file, adapter.length, len(adapter.mean)) for file in files]))
    chances = adapter({"series": series.to(adapter.device)}).softmax(-1).tolist()  # (B, K)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["file", "class", *(f"p({name})" for name in adapter.classes)])
        for file, row in zip(files, chances, strict=True):
            table.writerow([file, adapter.classes[int(np.argmax(row))], *(f"{p:.4f}" for p in row)])
    return [folder / "predictions.csv"]
