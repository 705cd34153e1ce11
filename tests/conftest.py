import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # the models of the tests are too small for a second thread to pay

import torch

torch.set_num_threads(1)


@pytest.fixture
def attend(tmp_path):
    """The real command line, in a folder of its own: attend("train", "domain=text") -> CompletedProcess."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("attend"), *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return command
