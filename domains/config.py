"""What configures training in every domain."""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


def data_home() -> Path:
    """Where downloads, and what is made of them, are kept: $ATTEND_DATA, or ~/.cache/attend."""
    return Path(os.environ.get("ATTEND_DATA", Path.home() / ".cache" / "attend"))


@dataclass
class DomainConfig:
    """Which domain, and the Python package that holds its rooms (`domains/__init__.py` lists them)."""

    name: str = "???"
    package: str = "???"


class Rule(Enum):
    adamw = "adamw"
    muon = "muon"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    linear = "linear"


@dataclass
class OptimizerConfig:
    """How weights are updated. Rates are per step; `warmup` and `decay` are fractions of all steps."""

    rule: Rule = Rule.adamw  # how a gradient becomes a step
    lr: float = 1e-3  # the highest learning rate; with rule=muon of all weights but the matrices inside the blocks
    matrix_lr: float = 0.02  # of the matrices inside the blocks, for rule=muon
    weight_decay: float = 0.01  # how fast matrices shrink, times the learning rate
    layer_decay: float = 1.0  # a block's rate is this fraction of the next block's; for fine-tuning
    beta2: float = 0.99  # of AdamW, whose β₁ is 0.9
    schedule: Schedule = Schedule.cosine  # what follows the warm-up
    warmup: float = 0.05  # linear from 0
    decay: float = 1.0  # the last part of the run, in which a cosine or linear schedule falls to 0
