"""Devices and dtypes as on a GPU, without one: torch believes in a device that a preloaded library makes up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory) -> Path:
    """The library of fake CUDA calls, compiled."""
    compiler = shutil.which("g++")
    headers = Path(torch.__file__).parent.parent / "triton/backends/nvidia/include"
    if not (torch.version.cuda and compiler and (headers / "cuda_runtime_api.h").is_file()):
        pytest.skip("needs g++, PyTorch built for CUDA, and the headers that Triton brings")
    library = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"  # torch opens the driver by this name
    command = [
        compiler,
        "-shared",
        "-fPIC",
        f"-I{headers}",
        str(HERE / "fake_runtime.cpp"),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return library


@pytest.mark.plain
def test_steps_of_all_domains_stay_on_the_device_in_their_dtypes(preloaded, tmp_path):
    fasta = tmp_path / "some.fasta"
    letters = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQ"
    fasta.write_text("".join(f">{n}\n{letters[n % 13 :]}{letters[: n % 17]}\n" for n in range(31)))
    done = subprocess.run(
        [sys.executable, str(HERE / "steps.py"), str(fasta)],
        env=os.environ
        | {"LD_PRELOAD": str(preloaded), "LD_LIBRARY_PATH": str(preloaded.parent), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {row["case"]: row["error"] for row in map(json.loads, done.stdout.splitlines())}
    assert len(found) == 24
    assert not {case: error for case, error in found.items() if error}
