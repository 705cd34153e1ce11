"""Configuration of the commands: plain dataclasses, free of torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from core.config import PositionConfig
from domains.config import DomainConfig


class OptimizerName(Enum):
    adamw = "adamw"
    muon = "muon"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    linear = "linear"


@dataclass
class OptimizerConfig:
    """The optimizer and its schedule. Rates are per step; `warmup` and `decay` are fractions of all steps."""

    name: OptimizerName = OptimizerName.adamw  # muon: for the matrices of the blocks, with adamw for the rest
    lr: float = 1e-3  # peak learning rate; with name=muon of all weights but the matrices of the blocks
    matrix_lr: float = 0.02  # peak learning rate of the matrices of the blocks, for name=muon
    weight_decay: float = 0.01  # of matrices, times the learning rate
    layer_decay: float = 1.0  # a block's rate is this fraction of the next block's; for fine-tuning
    beta2: float = 0.99  # of AdamW, whose β₁ is 0.9
    schedule: Schedule = Schedule.cosine  # after the warm-up
    warmup: float = 0.05  # linear from 0
    decay: float = 1.0  # the last part of the run, in which a cosine or linear schedule decays to 0


class Accelerator(Enum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


@dataclass
class TrainerConfig:
    """Lightning's Trainer, in its own terms; `val_check_interval` and `log_every_n_steps` count steps."""

    accelerator: Accelerator = Accelerator.auto  # the kind of device; auto: the best available
    devices: str = "auto"  # number of devices; auto: all
    num_nodes: int = 1  # number of machines
    strategy: str = "auto"  # auto, ddp; shard: weights, gradients and optimizer state divided among devices (FSDP2)
    tensor_parallel: int = 1  # devices that share the heads and hidden features of each block, for strategy=shard
    activation_checkpointing: bool = False  # recompute activations in the backward pass instead of storing them
    compile: bool = False  # each block, by torch.compile
    precision: str = "auto"  # auto: bfloat16 on a GPU that supports it, float32 elsewhere
    max_steps: int = 1000  # optimizer steps of the whole training
    val_check_interval: int = 250  # steps between validations, each with a checkpoint
    log_every_n_steps: int = 25  # steps between lines of metrics.csv
    gradient_clip_val: float | None = 1.0  # the largest norm of the gradient of all weights
    accumulate_grad_batches: int = 1  # batches per step, one after the other, if memory holds no larger batch
    skip_nan: int = 0  # consecutive steps to skip if their loss is not finite; above 0 each step waits for a GPU
    plot_every_n_steps: int | None = None  # steps between plots: attention maps (vision), achieved returns (rl)
    ema_decay: float | None = None  # decay of a moving average of the weights, which replaces them at the end


@dataclass
class LoggerConfig:
    """Logs of the training curves."""

    csv: bool = True  # metrics.csv in the run folder
    tensorboard: bool = True  # tensorboard/ in the run folder


@dataclass
class TrainConfig:
    """One training run. `run` is its folder; one that exists is resumed."""

    domain: DomainConfig = field(default_factory=DomainConfig)
    data: Any = None
    model: Any = None
    position: PositionConfig = field(default_factory=PositionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0  # of all random numbers in the run
    init: str | None = None  # a finished run whose matching weights initialise this one
    frozen: bool = False  # freeze the core's blocks, except their norms
    run: str = "outputs/${domain.name}/${now:%Y-%m-%d_%H-%M-%S}"  # the run folder


@dataclass
class EvaluateConfig:
    """Settings of conf/evaluate.yaml, which explains the keys."""

    run: str = "???"
    split: str = "test"
    flips: bool = False
    output: str = "${run}/evaluate"


@dataclass
class PredictConfig:
    """Settings of conf/predict.yaml, which explains the keys."""

    run: str = "???"
    input: str = "???"
    output: str = "${run}/predict"


@dataclass
class ExplainConfig:
    """Settings of conf/explain.yaml, which explains the keys."""

    run: str = "???"
    input: str | None = None
    output: str = "${run}/explain"


@dataclass
class GenerateConfig:
    """Settings of conf/generate.yaml, which explains the keys."""

    run: str = "???"
    prompt: list[str] = MISSING
    length: int = 600
    temperature: float = 0.7
    top_k: int | None = 40
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    lookup: int = 0
    draft: str | None = None
    special: bool | None = None
    stop: list[str] = field(default_factory=list)
    seed: int = 0
    output: str = "${run}/generate"


@dataclass
class CollectConfig:
    """Settings of conf/collect.yaml, which explains the keys."""

    env: str = "???"
    max_episode_steps: int | None = None
    policy: list[str] = field(default_factory=lambda: ["random"])
    target: float | None = None
    noise: float = 0.0
    episodes: int = 1000
    seed: int = 0
    minari: str | None = None
    output: str = "outputs/collect/${env}.npz"


@dataclass
class FetchConfig:
    """Settings of conf/fetch.yaml, which explains the keys."""

    ids: list[str] = MISSING
    output: str = "outputs/structures"


@dataclass
class ImportConfig:
    """Settings of conf/import.yaml, which explains the keys."""

    source: str = "???"
    name: str | None = None
    file: str | None = None
    pretrained: bool = True
    size: int | None = None
    classes: list[str] | None = None
    known: Any = None
    run: str = "???"


@dataclass
class ExportConfig:
    """Settings of conf/export.yaml, which explains the keys."""

    run: str = "???"
    output: str = "${run}/export"


class Equal(Enum):
    steps = "steps"
    flops = "flops"
    seconds = "seconds"


@dataclass
class CompareConfig:
    """Settings of conf/compare.yaml, which explains the keys."""

    factor: str = "???"
    values: list[Any] = MISSING
    domains: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    seeds: int = 3
    equal: Equal = Equal.steps
    scale: float = 1.0
    settings: list[str] = field(default_factory=list)
    output: str = "outputs/compare/${factor}"


class Mode(Enum):
    """The core that a domain's adapter is trained with."""

    scratch = "scratch"  # a new core
    random = "random"  # a new core, frozen at its initial weights
    tuned = "tuned"  # the core of another run
    frozen = "frozen"  # the same, frozen


@dataclass
class TransferConfig:
    """Settings of conf/transfer.yaml, which explains the keys."""

    pretrain: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    finetune: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    modes: list[Mode] = field(default_factory=lambda: [*Mode])
    seeds: int = 3
    scale: float = 1.0
    core: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    output: str = "outputs/transfer"


@dataclass
class PlanConfig:
    """Settings of conf/plan.yaml, which explains the keys."""

    devices: int = 1
    device: str = "h100"
    mfu: float = 0.4
    length: int | None = None
    settings: list[str] = field(default_factory=list)
    output: str = "outputs/plan"


@dataclass
class JobConfig:
    """Settings of conf/job.yaml, which explains the keys."""

    folder: str = "???"
    number: int = MISSING


@dataclass
class DemoConfig:
    """Settings of conf/demo.yaml, which explains the keys."""

    domains: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    output: str = "outputs/demo"
    seed: int = 0


@dataclass
class BenchConfig:
    """Settings of conf/bench.yaml, which explains the keys."""

    what: str = "kernels"
    repeats: int = 7
    output: str = "outputs/bench"
