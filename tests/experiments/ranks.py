"""Train some configurations one after the other, in one process or as one of several under torchrun.

python ranks.py FOLDER NAME=WORDS …         WORDS: settings, separated by blanks; the run is FOLDER/NAME
"""

import sys
import warnings
from pathlib import Path

from experiments.compose import compose
from experiments.train import train
from experiments.training.progress import make_progress

warnings.filterwarnings("ignore", category=DeprecationWarning)
folder = Path(sys.argv[1])
for argument in sys.argv[2:]:
    name, words = argument.split("=", 1)
    with make_progress() as progress:
        train(compose("config", [*words.split(), f"run={folder / name}"]), folder / name, progress)
