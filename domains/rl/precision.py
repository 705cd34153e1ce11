"""Precision of states and rewards in float32: near 1.7e9, such as a time in seconds, its steps are 128.

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
    """Return what to subtract from each number of a state before float32: the mean of (M, S) where that is needed,
    else 0. None where it is needed nowhere."""
    if states.ndim != 2 or not (needed := coarse(states)).any():
        return None
    return np.where(needed, states.mean(0, dtype=np.float64), 0).tolist()


def say_what_is_coarse(name: str, values: np.ndarray, where: object) -> None:
    """Warn of rewards or returns (M,) that float32 cannot tell apart."""
    if len(values) and coarse(values[:, None])[0]:
        mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        warn_data(
            f"{name} of {where} differ by less than float32 resolves at their size ({mean:.6g} ± {spread:.3g}), and are"
            " hardly told apart; take a constant off every reward"
        )


def say_what_is_hardly_seen(std: np.ndarray) -> None:
    """Warn of numbers of a state that vary by so little, (S,), that the 1e-6 added to it when dividing counts."""
    if len(small := np.flatnonzero((std > 0) & (std < 1e-5))):
        warn_data(
            f"{len(small)} of {len(std)} numbers of a state vary by less than 1e-5 (first: number {small[0]}, by"
            f" {std[small[0]]:.3g}), and are hardly seen; give them in a smaller unit"
        )


def say_what_needs_an_offset(states: np.ndarray) -> None:
    """Warn of states (M, S) from which their mean is taken off."""
    if states.ndim != 2 or not (needed := np.flatnonzero(coarse(states))).size:
        return
    column, how = states[:, needed[0]].astype(np.float64), "their mean is taken off in float64 first"
    if states.dtype == np.float32:
        how = "they came as float32, and what that had lost is lost; write observations as float64"
    warn_data(
        f"{needed.size} of {states.shape[1]} numbers of a state differ by less than float32 resolves at their size"
        f" (first: number {needed[0]}, {column.mean():.6g} ± {column.std():.3g}): {how}"
    )
