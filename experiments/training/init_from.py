"""`init=FOLDER`: initialise a run with the weights of another one."""

from collections.abc import Collection, Iterable
from enum import Enum
from itertools import accumulate
from pathlib import Path

from omegaconf import DictConfig

from domains.adapter import DomainAdapter
from experiments.compose import format_value
from experiments.runs import read_weights
from experiments.untrusted import load_domain, read_config, read_spec

BLOCK_SETTINGS = (
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
CORE_PREFIXES = ("transformer.blocks.", "transformer.norm.")  # shared by all domains


def load_init_weights(adapter: DomainAdapter, package: str, folder: Path) -> str:
    """Load the weights of a finished run whose names and shapes match; from another domain only the core (blocks and
    final norm), because an embedding of the same shape embeds something else.

    A domain can adapt or exclude weights of its own runs by `Domain.init_from`.

    Returns:
        A report: the modules that were loaded, resized, newly initialised, and not used.
    Raises:
        ValueError: if the folder is no finished run, or nothing of its transformer fits.
    """
    for name in ("config.yaml", "spec.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"init={folder} is no finished run: it has no {name} (attend train writes one)")
    source_weights, state_dict = read_weights(folder), adapter.state_dict()
    source_config = read_config(folder)
    other = not same_domain(package, source_config.domain.package)
    state = {name: weight for name, weight in source_weights.items() if not other or name.startswith(CORE_PREFIXES)}
    adapt_weights = load_domain(package).init_from
    if not other and adapt_weights is not None:
        state = adapt_weights(adapter, state, read_spec(folder))
    loaded = {
        name: weight for name, weight in state.items() if name in state_dict and state_dict[name].shape == weight.shape
    }
    if not any(name.startswith("transformer.") for name in loaded):
        needed = differing_settings(adapter, source_config) or f"the model of {folder}/config.yaml"
        raise ValueError(f"nothing of the transformer in init={folder} fits this one; it needs {needed}")
    adapter.load_state_dict(loaded, strict=False)
    resized = [name for name in loaded if source_weights[name].shape != state_dict[name].shape]
    parts = {
        "taken": group_by_module(loaded.keys(), state_dict),
        "resized": resized,
        "anew": group_by_module(state_dict.keys() - loaded.keys(), state_dict),
        "left there": group_by_module(source_weights.keys() - loaded.keys(), source_weights),
    }
    report = [f"{label}: {', '.join(names)}" for label, names in parts.items() if names]
    if differing := differing_settings(adapter, source_config):
        report.append(f"the blocks there are made otherwise, for which this one would need {differing}")
    return "; ".join(report)


def differing_settings(adapter: DomainAdapter, source_config: DictConfig) -> str:
    """Return the overrides that would make the blocks like those of another run."""
    state_dict = adapter.transformer.config
    pairs = {
        name: (source_config.model.get(name), getattr(state_dict, name))
        for name in BLOCK_SETTINGS
        if name in source_config.model
    }
    plain = {name: [x.value if isinstance(x, Enum) else x for x in pair] for name, pair in pairs.items()}
    return " ".join(
        f"model.{name}={format_value(source_weights)}"
        for name, (source_weights, ours) in plain.items()
        if source_weights != ours
    )


def same_domain(one: str, other: str) -> bool:
    """Return whether two packages belong to one domain, as domains.vision and domains.vision.masked do."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def freeze(adapter: DomainAdapter) -> None:
    """Freeze the core's blocks, except their norms; the adapter stays trainable.

    Source: Lu et al. 2021, "Pretrained transformers as universal computation engines".
    """
    for name, weight in adapter.transformer.blocks.named_parameters():
        if "norm" not in name:
            weight.requires_grad_(False)


def group_by_module(names: Collection[str], among: Iterable[str]) -> list[str]:
    """Return the fewest modules and tensors that hold `names` and no others of `among`."""
    others, found = [name for name in among if name not in names], set()
    for name in names:
        heads = accumulate(name.split("."), lambda head, part: f"{head}.{part}")
        found.add(next(head for head in heads if not any(f"{o}.".startswith(f"{head}.") for o in others)))
    return sorted(found)
