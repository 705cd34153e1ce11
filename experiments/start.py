"""`init=FOLDER`: a run that starts from the weights of another one."""

from collections.abc import Collection, Iterable
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from domains.adapter import DomainAdapter
from experiments.foreign import read_spec
from experiments.runs import read_weights, room


def start(adapter: DomainAdapter, package: str, folder: Path) -> str:
    """Give a model those weights of a finished run whose names and shapes agree with its own.

    A domain that can make more of them fit, or must leave some, has a room for it: start.py, with
    fitted(adapter, state, spec) -> state.

    Returns:
        What was taken, what starts anew, and what was left there.
    Raises:
        ValueError: if the folder is no finished run, or nothing of its transformer fits.
    """
    for name in ("spec.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"init={folder} is no finished run: it has no {name} (attend train writes one)")
    theirs, own = read_weights(folder), adapter.state_dict()
    state = dict(theirs)
    if find_spec(f"{package}.start"):
        state = room(package, "start").fitted(adapter, state, read_spec(folder))
    taken = {name: weight for name, weight in state.items() if name in own and own[name].shape == weight.shape}
    if not any(name.startswith("transformer.") for name in taken):
        raise ValueError(
            f"nothing of the transformer in init={folder} fits this one; model.dim and model.heads, depth and mixer "
            f"must be as in {folder}/config.yaml"
        )
    adapter.load_state_dict(taken, strict=False)
    resized = [name for name in taken if theirs[name].shape != own[name].shape]
    parts = {
        "taken": modules(taken.keys(), own),
        "resized": resized,
        "anew": modules(own.keys() - taken.keys(), own),
        "left there": modules(theirs.keys() - taken.keys(), theirs),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def modules(names: Collection[str], among: Iterable[str]) -> list[str]:
    """The fewest modules and tensors that hold `names` and no others of `among`."""
    others, found = [name for name in among if name not in names], set()
    for name in names:
        heads = accumulate(name.split("."), lambda head, part: f"{head}.{part}")
        found.add(next(head for head in heads if not any(f"{o}.".startswith(f"{head}.") for o in others)))
    return sorted(found)
