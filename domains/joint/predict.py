"""Prediction by a shared core: refused, for an input belongs to a single domain."""

from pathlib import Path

from domains.joint.adapter import Adapter


def predict(adapter: Adapter, source: str, folder: Path) -> list[Path]:
    """Raises ValueError: a run of several domains does not say what `source` is."""
    raise ValueError(
        f"domain=joint does not know of which domain {source} is; train one domain from this core "
        f"(attend train domain={next(iter(adapter.parts))} init=FOLDER …) and predict with that run"
    )
