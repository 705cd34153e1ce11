"""A protein chain for `attend explain`.

Shapes: B copies · L residues · K bins of distance
"""

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from domains.adapter import to_device
from domains.data_warnings import warn_data, warn_left_out
from domains.explanation import Element, Explanation, Form, Picture, percent, png
from domains.protein.adapter import Adapter, max_positions
from domains.protein.chain import Chain, to_letters
from domains.protein.data import Data, collate
from domains.protein.figures import UNSEEN
from domains.protein.files import read_chains
from domains.protein.metrics import CONTACT, NEAR, best, distances, precision, ranked
from domains.protein.predict import residue_numbers

PAGE_RESIDUES = 128  # residues on one page


def explanations(adapter: Adapter, source: str) -> list[Explanation]:
    """Return the first chain of a file, at most its first 128 residues.

    Removed elements are removed from the attention between residues, not from the pair representation.

    Raises:
        ValueError: if the file cannot be read, or its first chain has fewer than two residues.
    """
    (chain, *others), most = read_chains(source), max_residues(adapter)
    warn_left_out(1 + len(others), {"behind the first": [other.name for other in others]}, source, "chains")
    if len(chain) < 2:
        raise ValueError(f"{source}, {chain.name}: one residue; give at least 2, for one to attend to the other")
    if len(chain) > most:
        warn_data(f"the first {most} of the {len(chain)} residues of {chain.name} are shown")
    return [explanation(adapter, chain)]


def example(adapter: Adapter, data: Data) -> Explanation:
    """Return the first chain of the test split that fits the page."""
    chains = data.splits["test"]
    return explanation(
        adapter, next((chain for chain in chains if 2 <= len(chain) <= max_residues(adapter)), chains[0])
    )


def max_residues(adapter: Adapter) -> int:
    """Return the maximum number of residues of the page and the model."""
    return int(min(PAGE_RESIDUES, max_positions(adapter)))


@torch.inference_mode()
def explanation(adapter: Adapter, chain: Chain) -> Explanation:
    seen = np.arange(min(len(chain), max_residues(adapter)))
    batch = to_device(collate([chain], [seen], adapter.channels), adapter.device)
    contact = adapter.contacts(adapter(batch))[0].cpu().numpy()  # (L, L)
    distance = None if chain.cb is None else distances(chain)[: len(seen), : len(seen)]
    letters, called = to_letters(chain.sequence), residue_numbers(chain)
    names = [f"{letters[n]}{called[n] or n + 1}" for n in seen]
    i, j = ranked(contact, NEAR)
    answers = [
        (f"{names[a]} touches {names[b]}", percent(float(contact[a, b]))) for a, b in zip(i[:4], j[:4], strict=True)
    ]
    if distance is not None and best(contact, distance, 5)[0].size:
        answers.append(("precision of the L/5 likeliest long-range pairs", percent(precision(contact, distance, 5))))
    return Explanation(
        name=chain.name,
        form=Form.residues,
        batch=batch,
        elements=[Element(letters[n], f"residue {names[n]}, number {n + 1} of {len(chain)}") for n in seen],
        answers=answers,
        distribution=lambda predictions: predictions.distance.float().softmax(-1).flatten(1, 2),  # (B, L², K)
        about=f"{len(seen) ** 2:,} predictions, one for each two residues: the probability of each bin of distance",
        pictures=[contact_picture(contact, distance)],
    )


def contact_picture(contact: np.ndarray, distance: np.ndarray | None) -> Picture:
    """Draw P(contact), a pixel per pair; below the diagonal the contacts of the structure if known, grey if
    unresolved."""
    colours = colormaps["Blues"](np.sqrt(contact))[..., :3]  # most are predicted with a probability far below 1
    alt = f"Predicted contacts of {len(contact)} residues, the darker the likelier"
    if distance is not None:
        below = np.tri(len(contact), k=-1, dtype=bool)
        shade = np.where(np.isnan(distance), float(UNSEEN), np.where(distance < CONTACT, 0.0, 1.0))
        colours[below] = shade[below, None]
        alt += "; below the diagonal those of the structure, grey where a residue was not seen"
    return Picture(png(Image.fromarray((255 * colours).round().astype(np.uint8))), alt)
