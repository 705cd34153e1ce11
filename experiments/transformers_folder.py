"""Weights of a folder written by transformers: model.safetensors, or shards and their index.

model.safetensors.index.json        {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors", …}}
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 2**28  # bytes of a JSON file
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "consolidated.00.pth")
FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_state_dict(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a model.

    Raises:
        ValueError: if a file is missing or damaged, an index and its shards differ, or weights are quantised.
    """
    if (folder / SINGLE_FILE).is_file():
        state = read_safetensors(folder / SINGLE_FILE)
    elif (folder / INDEX_FILE).is_file():
        state = read_shards(folder)
    else:
        pickled = [name for name in PICKLE_FILES if (folder / name).exists()]
        hint = f"; {pickled[0]} is pickled, which is not opened here: save it by save_pretrained" if pickled else ""
        raise ValueError(f"{folder} has no {SINGLE_FILE}, and no shards with {INDEX_FILE}{hint}")
    if quantized := {
        name: t.dtype for name, t in state.items() if t.dtype not in FLOAT_DTYPES and "." in name and t.dim() > 1
    }:
        name, dtype = next(iter(quantized.items()))
        raise ValueError(
            f"{len(quantized)} weights of {folder} are quantised (first: {name}, {str(dtype).removeprefix('torch.')}); "
            "give those in float32, float16 or bfloat16"
        )
    return state


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Read the weights that the index lists from its shards; refuse missing shards and other folders."""
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise ValueError(f"{folder / INDEX_FILE} has no weight_map, which says what file each weight is in")
    files = sorted(set(weight_map.values()))
    if outside := [file for file in files if Path(file).name != file or file in ("", ".", "..")]:
        raise ValueError(f"{folder / INDEX_FILE} names {outside[0]!r}, which is no file of its folder")
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise ValueError(f"{len(missing)} of {len(files)} shards in {folder} are missing (first: {missing[0]})")
    state: dict[str, Tensor] = {}
    for file in files:
        tensors = read_safetensors(folder / file)
        expected = {name for name, shard in weight_map.items() if shard == file}
        for names, problem in (
            (expected - tensors.keys(), "lacks"),
            (tensors.keys() - expected, "has, unlike its index,"),
        ):
            if names:
                raise ValueError(f"{folder / file} {problem} {len(names)} weights (first: {min(names)})")
        state |= tensors
    return state


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read every tensor of a .safetensors file."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} cannot be read: it holds no names")
    return content
