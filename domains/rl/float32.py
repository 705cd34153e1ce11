"""The resolution of float32 for states and rewards: near 1.7e9, such as a time in seconds, its steps are 128.

Shapes: M steps · S state width
"""

import numpy as np

from domains.data_warnings import warn_data

MAX_MAGNITUDE = 1e37  # above, sums and differences may overflow float32
MIN_RESOLUTION = 1000  # a standard deviation should be at least so many times the rounding error


def below_resolution(columns: np.ndarray) -> np.ndarray:
    """Return for each column of (M, S), (S,), whether float32 rounds its values too coarsely for their spread."""
    spread = np.array([column.std(dtype=np.float64) for column in columns.T])
    most = np.array([max(-float(column.min()), float(column.max())) for column in columns.T], np.float32)
    return (spread > 0) & (np.spacing(most) / 2 > spread / MIN_RESOLUTION)


def max_magnitude(array: np.ndarray) -> float:
    """Return the largest absolute value; 0 for empty arrays, and for integers, which are within range anyway."""
    return max(-float(array.min()), float(array.max())) if array.size and array.dtype.kind == "f" else 0.0


def to_smallest_float(observations: np.ndarray) -> np.ndarray:
    """Return vectors (M, S) as float32, or as float64 where float32 is too coarse; images of bytes unchanged."""
    if observations.ndim != 2:
        return observations
    if observations.dtype == np.float32 or not below_resolution(observations).any():
        return observations.astype(np.float32, copy=False)
    return observations.astype(np.float64, copy=False)


def state_offset(states: np.ndarray) -> list[float] | None:
    """Return what to subtract from each number of a state before float32: the mean of (M, S) where that is needed,
    else 0. None where it is needed nowhere."""
    if states.ndim != 2 or not (needed := below_resolution(states)).any():
        return None
    return np.where(needed, states.mean(0, dtype=np.float64), 0).tolist()


def warn_coarse(name: str, values: np.ndarray, where: object) -> None:
    """Warn about rewards or returns (M,) that differ by less than float32 resolves."""
    if len(values) and below_resolution(values[:, None])[0]:
        mean, spread = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        warn_data(
            f"{name} of {where} differ by less than float32 resolves at their size ({mean:.6g} ± {spread:.3g}), and are"
            " hardly told apart; take a constant off every reward"
        )


def warn_small_std(std: np.ndarray) -> None:
    """Warn about states whose standard deviation, (S,), is so small that the 1e-6 added to it matters."""
    if len(small := np.flatnonzero((std > 0) & (std < 1e-5))):
        warn_data(
            f"{len(small)} of {len(std)} numbers of a state vary by less than 1e-5 (first: number {small[0]}, by"
            f" {std[small[0]]:.3g}), and are hardly seen; give them in a smaller unit"
        )


def warn_offset(states: np.ndarray) -> None:
    """Warn about states (M, S) whose mean is subtracted first."""
    if states.ndim != 2 or not (needed := np.flatnonzero(below_resolution(states))).size:
        return
    column, how = states[:, needed[0]].astype(np.float64), "their mean is taken off in float64 first"
    if states.dtype == np.float32:
        how = "they came as float32, and what that had lost is lost; write observations as float64"
    warn_data(
        f"{needed.size} of {states.shape[1]} numbers of a state differ by less than float32 resolves at their size"
        f" (first: number {needed[0]}, {column.mean():.6g} ± {column.std():.3g}): {how}"
    )
