"""`init=FOLDER`: a run that starts from the weights of another one."""

from collections.abc import Collection, Iterable
from enum import Enum
from itertools import accumulate
from pathlib import Path

from omegaconf import DictConfig

from domains.adapter import DomainAdapter
from experiments.compose import written
from experiments.runs import read_weights
from experiments.untrusted import load_domain, read_config, read_spec

BLOCKS = (
    "dim",
    "depth",
    "num_heads",
    "num_kv_heads",
    "mixer",
    "mlp_ratio",
    "activation",
    "norm",
    "qk_norm",
    "linear_bias",
)
CORE = ("transformer.blocks.", "transformer.norm.")  # what means the same in every domain


def start(adapter: DomainAdapter, package: str, folder: Path) -> str:
    """Give a model those weights of a finished run whose names and shapes agree with its own; of a run of another
    domain the core alone, its blocks and final norm, for an embedding of the same shape is one of other things.

    A domain that can make more of its own runs' weights fit, or must leave some, says so (`Domain.init_from`).

    Returns:
        What was taken, what starts anew, and what was left there.
    Raises:
        ValueError: if the folder is no finished run, or nothing of its transformer fits.
    """
    for name in ("config.yaml", "spec.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"init={folder} is no finished run: it has no {name} (attend train writes one)")
    theirs, own = read_weights(folder), adapter.state_dict()
    before = read_config(folder)
    other = not kin(package, before.domain.package)
    state = {name: weight for name, weight in theirs.items() if not other or name.startswith(CORE)}
    fit = load_domain(package).init_from
    if not other and fit is not None:
        state = fit(adapter, state, read_spec(folder))
    taken = {name: weight for name, weight in state.items() if name in own and own[name].shape == weight.shape}
    if not any(name.startswith("transformer.") for name in taken):
        needed = unlike(adapter, before) or f"the model of {folder}/config.yaml"
        raise ValueError(f"nothing of the transformer in init={folder} fits this one; it needs {needed}")
    adapter.load_state_dict(taken, strict=False)
    resized = [name for name in taken if theirs[name].shape != own[name].shape]
    parts = {
        "taken": modules(taken.keys(), own),
        "resized": resized,
        "anew": modules(own.keys() - taken.keys(), own),
        "left there": modules(theirs.keys() - taken.keys(), theirs),
    }
    told = [f"{what}: {', '.join(names)}" for what, names in parts.items() if names]
    if strange := unlike(adapter, before):
        told.append(f"the blocks there are made otherwise, for which this one would need {strange}")
    return "; ".join(told)


def unlike(adapter: DomainAdapter, before: DictConfig) -> str:
    """What would have to be set for blocks like those of another run."""
    own = adapter.transformer.config
    pairs = {name: (before.model.get(name), getattr(own, name)) for name in BLOCKS if name in before.model}
    plain = {name: [x.value if isinstance(x, Enum) else x for x in pair] for name, pair in pairs.items()}
    return " ".join(f"model.{name}={written(theirs)}" for name, (theirs, ours) in plain.items() if theirs != ours)


def kin(one: str, other: str) -> bool:
    """Whether two packages are of one domain, as domains.vision and domains.vision.masked are."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def freeze(adapter: DomainAdapter) -> None:
    """Let the core's blocks keep their weights, but for their norms; all of the adapter learns.

    Source: Lu et al. 2021, "Pretrained transformers as universal computation engines".
    """
    for name, weight in adapter.transformer.blocks.named_parameters():
        if "norm" not in name:
            weight.requires_grad_(False)


def modules(names: Collection[str], among: Iterable[str]) -> list[str]:
    """The fewest modules and tensors that hold `names` and no others of `among`."""
    others, found = [name for name in among if name not in names], set()
    for name in names:
        heads = accumulate(name.split("."), lambda head, part: f"{head}.{part}")
        found.add(next(head for head in heads if not any(f"{o}.".startswith(f"{head}.") for o in others)))
    return sorted(found)
