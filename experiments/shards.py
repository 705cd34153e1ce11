"""The weights of a folder of transformers: model.safetensors, or its shards and the index that says what is where.

model.safetensors.index.json        {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors", …}}
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LARGEST = 2**28  # bytes of a JSON file
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "consolidated.00.pth")
KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_state(folder: Path) -> dict[str, Tensor]:
    """All weights of a model by their names.

    Raises:
        ValueError: if a file is missing or damaged, an index and its shards differ, or weights are quantised.
    """
    if (folder / WHOLE).is_file():
        state = read_tensors(folder / WHOLE)
    elif (folder / INDEX).is_file():
        state = read_shards(folder)
    else:
        there = [name for name in PICKLED if (folder / name).exists()]
        hint = f"; {there[0]} is pickled, which is not opened here: save it by save_pretrained" if there else ""
        raise ValueError(f"{folder} has no {WHOLE}, and no shards with {INDEX}{hint}")
    if strange := {name: t.dtype for name, t in state.items() if t.dtype not in KINDS and "." in name and t.dim() > 1}:
        name, kind = next(iter(strange.items()))
        raise ValueError(
            f"{len(strange)} weights of {folder} are quantised (first: {name}, {str(kind).removeprefix('torch.')}); "
            "give those in float32, float16 or bfloat16"
        )
    return state


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Read the weights that the index names from its shards; refuse missing ones and other folders."""
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map, which says what file each weight is in")
    files = sorted(set(places.values()))
    if outside := [file for file in files if Path(file).name != file or file in ("", ".", "..")]:
        raise ValueError(f"{folder / INDEX} names {outside[0]!r}, which is no file of its folder")
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise ValueError(f"{len(missing)} of {len(files)} shards in {folder} are missing (first: {missing[0]})")
    state: dict[str, Tensor] = {}
    for file in files:
        found = read_tensors(folder / file)
        named = {name for name, place in places.items() if place == file}
        for names, how in ((named - found.keys(), "lacks"), (found.keys() - named, "has, unlike its index,")):
            if names:
                raise ValueError(f"{folder / file} {how} {len(names)} weights (first: {min(names)})")
        state |= found
    return state


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a .safetensors file."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """An object of a JSON file of bounded size."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError("it is too large")
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{file} cannot be read: it holds no names")
    return said
