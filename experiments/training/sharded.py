"""Sharded checkpoints: a folder in the format of torch.distributed.checkpoint, one file per process.

.metadata           the index of the values
__0_0.distcp …      the values, a file for each process
meta.pt             Lightning's own state

torch opens the index with pickle, and some of the values without weights_only. So all are first read here by loaders
that build only data.
"""

import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from experiments.training.parallel import merge_split_weights

ALLOWED = {
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath"},
    "torch": {
        "Size",
        "device",
        "strided",
        *(str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)),
    },
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
}


class IndexUnpickler(pickle.Unpickler):
    """An unpickler that builds only the types of an index."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"an index has no {module}.{name}")
        return super().find_class(module, name)


def is_intact(folder: Path) -> bool:
    """Return whether all files are as long as the index says and hold only data. May raise any error of reading."""
    with open(folder / ".metadata", "rb") as file:
        index = IndexUnpickler(file).load()
    for key, place in index.storage_data.items():
        path = folder / place.relative_path
        if path.parent != folder or place.transform_descriptors or place.offset + place.length > path.stat().st_size:
            return False
        if isinstance(index.state_dict_metadata[key.fqn], BytesStorageMetadata):
            with open(path, "rb") as file:
                file.seek(place.offset)
                torch.load(io.BytesIO(file.read(place.length)), weights_only=True)
    with zipfile.ZipFile(folder / "meta.pt") as file:
        if file.testzip() is not None:
            return False
    return "global_step" in torch.load(folder / "meta.pt", map_location="meta", weights_only=True)


def read_sharded_weights(folder: Path) -> dict[str, Tensor]:
    """Read the model's full weights from an intact checkpoint of any number of processes."""
    with tempfile.TemporaryDirectory() as there:
        dcp_to_torch_save(folder, os.path.join(there, "all.pt"))
        state = torch.load(os.path.join(there, "all.pt"), weights_only=True, mmap=True)["state_dict"]
        return {name.removeprefix("adapter."): weight.clone() for name, weight in merge_split_weights(state).items()}
