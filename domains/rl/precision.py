"""What float32 can hold of states and rewards: near 1.7e9, such as a time in seconds, its steps are 128.

Shapes: M steps · S state width
"""

import numpy as np

from domains.data_warnings import warn_data

LARGEST = 1e37  # beyond, sums and differences may leave the range of float32
FINE = 1000  # a standard deviation should be at least so many times what rounding changes


def coarse(columns: np.ndarray) -> np.ndarray:
    """(M, S) to (S,): whether float32 is too coarse for the differences within a column, at the size that it has."""
    spread = np.array([column.std(dtype=np.float64) for column in columns.T])
    most = np.array([max(-float(column.min()), float(column.max())) for column in columns.T], np.float32)
    return (spread > 0) & (np.spacing(most) / 2 > spread / FINE)


def largest(array: np.ndarray) -> float:
    """The largest number by size; 0 of none, and of whole numbers, which float32 reaches anyway."""
    return max(-float(array.min()), float(array.max())) if array.size and array.dtype.kind == "f" else 0.0


def fitting(observations: np.ndarray) -> np.ndarray:
    """Vectors (M, S) as float32, or where that would lose differences as float64; images of bytes as they are."""
    if observations.ndim != 2:
        return observations
    if observations.dtype == np.float32 or not coarse(observations).any():
        return observations.astype(np.float32, copy=False)
    return observations.astype(np.float64, copy=False)


def offset(states: np.ndarray) -> list[float] | None:
    """What to take off each number of a state before it is rounded to float32: the mean (M, S) where that is needed,
    else 0. None where it is needed nowhere."""
    if states.ndim != 2 or not (needed := coarse(states)).any():
        return None
    return np.where(needed, states.mean(0, dtype=np.float64), 0).tolist()


def say_what_is_coarse(states: np.ndarray, rewards: np.ndarray, returns: np.ndarray) -> None:
    """Warn of states (M, S) that need an offset, and of rewards (M,), returns (N,) that float32 cannot tell apart."""
    if states.ndim == 2 and (needed := np.flatnonzero(coarse(states))).size:
        first = needed[0]
        column, how = states[:, first], "its mean is taken off in float64 first"
        if states.dtype == np.float32:
            how = "they came as float32, and what that had lost is lost; write observations as float64"
        warn_data(
            f"{needed.size} of {states.shape[1]} numbers of a state differ by less than float32 resolves at their size"
            f" (first: number {first}, {column.mean(dtype=np.float64):.6g} ± {column.std(dtype=np.float64):.3g}): {how}"
        )
    for name, values in (("rewards", rewards), ("returns", returns)):
        if coarse(values[:, None])[0]:
            mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
            warn_data(
                f"{name} differ by less than float32 resolves at their size ({mean:.6g} ± {spread:.3g}): the model can"
                " hardly tell them apart; take a constant off every reward"
            )
