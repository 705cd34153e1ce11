"""Series with a class each: pendulums that Gymnasium swings, or CSV files of one's own.

Shapes: N series · T steps · S sensors
"""

from pathlib import Path

import gymnasium
import numpy as np
import torch
from sklearn.model_selection import train_test_split

from domains.data import DomainData
from sensors.config import DataConfig

GRAVITY = {"Moon": 1.62, "Mars": 3.71, "Earth": 9.81, "Jupiter": 24.79}  # m/s²
SWINGS = 400  # series of each


class Data(DomainData):
    config: DataConfig

    def setup(self, stage=None):
        if hasattr(self, "parts"):  # it may be called more than once
            return
        length, path = self.config.length, self.config.path
        x, self.classes, y = pendulums(length) if path is None else recordings(Path(path), length)
        rest, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
        train, val = train_test_split(rest, test_size=0.2, stratify=y[rest], random_state=0)
        self.parts = {name: (x[part], y[part]) for name, part in (("train", train), ("val", val), ("test", test))}

    def spec(self):
        x, _ = self.parts["train"]
        mean, std = x.mean((0, 1)), x.std((0, 1)) + 1e-6
        return {"classes": self.classes, "length": x.shape[1], "mean": mean.tolist(), "std": std.tolist()}

    def size(self, split):
        return len(self.parts[split][1])

    def batch(self, split, indices, rngs=None):
        x, y = (torch.from_numpy(part[list(indices)]) for part in self.parts[split])
        return {"series": x, "labels": y}  # (B, T, S), (B,)


def pendulums(length):
    """Cosine, sine and speed of a pendulum under random torques; the class is the gravity."""
    series = []
    for seed, g in enumerate(GRAVITY.values()):
        swings = gymnasium.make_vec("Pendulum-v1", SWINGS, vectorization_mode="sync", g=g)
        swings.reset(seed=seed * SWINGS)
        swings.action_space.seed(seed)
        series.append(np.stack([swings.step(swings.action_space.sample())[0] for _ in range(length)], 1))  # (N, T, S)
    return np.concatenate(series), [*GRAVITY], np.repeat(np.arange(len(GRAVITY)), SWINGS)


def recordings(folder, length):
    """Every FOLDER/CLASS/*.csv. Raises ValueError if there are none of two classes."""
    files = sorted(folder.glob("*/*.csv"))
    classes = sorted({file.parent.name for file in files})
    if len(classes) < 2:
        raise ValueError(f"{folder} needs CSV files in at least two sub-folders, one a class; it has {len(classes)}")
    sensors = read(files[0], length).shape[1]
    series = np.stack([read(file, length, sensors) for file in files])
    return series, classes, np.array([classes.index(file.parent.name) for file in files])


def read(file, length, sensors=None):
    """(T, S). Raises ValueError if the file holds no table of numbers, too few steps, or not so many sensors."""
    try:
        series = np.loadtxt(file, np.float32, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no table of numbers under one line of names: {error}") from error
    if len(series) < length:
        raise ValueError(f"{file} has {len(series)} steps, fewer than data.length={length}")
    if sensors not in (None, series.shape[1]):
        raise ValueError(f"{file} needs {sensors} columns, one a sensor, and has {series.shape[1]}")
    return series[:length]
