"""What configures a command: plain dataclasses, free of torch."""

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
    """How weights are updated. Rates are per step; `warmup` and `decay` are fractions of all steps."""

    name: OptimizerName = OptimizerName.adamw  # how a gradient becomes a step
    lr: float = 1e-3  # the highest learning rate; with name=muon of all weights but the matrices inside the blocks
    matrix_lr: float = 0.02  # of the matrices inside the blocks, for name=muon
    weight_decay: float = 0.01  # how fast matrices shrink, times the learning rate
    layer_decay: float = 1.0  # a block's rate is this fraction of the next block's; for fine-tuning
    beta2: float = 0.99  # of AdamW, whose β₁ is 0.9
    schedule: Schedule = Schedule.cosine  # what follows the warm-up
    warmup: float = 0.05  # linear from 0
    decay: float = 1.0  # the last part of the run, in which a cosine or linear schedule falls to 0


class Accelerator(Enum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


@dataclass
class TrainerConfig:
    """Lightning's Trainer, in its own terms; `val_check_interval` and `log_every_n_steps` count steps."""

    accelerator: Accelerator = Accelerator.auto  # the kind of device; auto: the best there is
    devices: str = "auto"  # auto, for all there are, or how many
    num_nodes: int = 1  # machines with so many devices each
    strategy: str = "auto"  # auto, ddp; shard: weights, gradients and optimizer state divided among devices (FSDP2)
    tensor_parallel: int = 1  # devices that share the heads and hidden features of each block, for strategy=shard
    activation_checkpointing: bool = False  # activations on the way back, instead of keeping them
    compile: bool = False  # each block, by torch.compile
    precision: str = "auto"  # auto: bfloat16 on a GPU that has it, float32 elsewhere
    max_steps: int = 1000  # of the whole training; a step changes the weights once
    val_check_interval: int = 250  # steps between validations; each leaves a checkpoint
    log_every_n_steps: int = 25  # steps between lines of metrics.csv
    gradient_clip_val: float | None = 1.0  # the longest that the gradient of all weights may be
    accumulate_grad_batches: int = 1  # batches that make a step, one after the other, where memory holds no larger one
    skip_nan: int = 0  # steps in a row that are left out if their loss is no number; above 0, each step waits for a GPU
    plot_every_n_steps: int | None = None  # steps between pictures: what the model looks at (vision), achieves (rl)
    ema_decay: float | None = None  # the weights that are kept are a moving average, with so much of what it was before


@dataclass
class LoggerConfig:
    """What is kept of the curves."""

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
    seed: int = 0  # of all chance in the run
    init: str | None = None  # a finished run, whose weights a new one starts from where they fit
    frozen: bool = False  # the core's blocks keep their weights, but for their norms
    run: str = "outputs/${domain.name}/${now:%Y-%m-%d_%H-%M-%S}"  # the folder


@dataclass
class EvaluateConfig:
    """conf/evaluate.yaml says what the keys mean."""

    run: str = "???"
    split: str = "test"
    flips: bool = False
    output: str = "${run}/evaluate"


@dataclass
class PredictConfig:
    """conf/predict.yaml says what the keys mean."""

    run: str = "???"
    input: str = "???"
    output: str = "${run}/predict"


@dataclass
class ExplainConfig:
    """conf/explain.yaml says what the keys mean."""

    run: str = "???"
    input: str | None = None
    output: str = "${run}/explain"


@dataclass
class GenerateConfig:
    """conf/generate.yaml says what the keys mean."""

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
    """conf/collect.yaml says what the keys mean."""

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
    """conf/fetch.yaml says what the keys mean."""

    ids: list[str] = MISSING
    output: str = "outputs/structures"


@dataclass
class ImportConfig:
    """conf/import.yaml says what the keys mean."""

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
    """conf/export.yaml says what the keys mean."""

    run: str = "???"
    output: str = "${run}/export"


class Equal(Enum):
    steps = "steps"
    flops = "flops"
    seconds = "seconds"


@dataclass
class CompareConfig:
    """conf/compare.yaml says what the keys mean."""

    factor: str = "???"
    values: list[Any] = MISSING
    domains: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    seeds: int = 3
    equal: Equal = Equal.steps
    scale: float = 1.0
    settings: list[str] = field(default_factory=list)
    output: str = "outputs/compare/${factor}"


class Mode(Enum):
    """What a domain's adapter is trained with."""

    scratch = "scratch"  # a new core
    random = "random"  # a new core, frozen as it was drawn
    tuned = "tuned"  # the core of another run
    frozen = "frozen"  # the same, frozen


@dataclass
class TransferConfig:
    """conf/transfer.yaml says what the keys mean."""

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
    """conf/plan.yaml says what the keys mean."""

    devices: int = 1
    device: str = "h100"
    mfu: float = 0.4
    length: int | None = None
    settings: list[str] = field(default_factory=list)
    output: str = "outputs/plan"


@dataclass
class JobConfig:
    """conf/job.yaml says what the keys mean."""

    folder: str = "???"
    number: int = MISSING


@dataclass
class DemoConfig:
    """conf/demo.yaml says what the keys mean."""

    domains: list[str] = field(default_factory=lambda: ["vision", "protein", "rl", "text"])
    output: str = "outputs/demo"
    seed: int = 0


@dataclass
class BenchConfig:
    """conf/bench.yaml says what the keys mean."""

    what: str = "kernels"
    repeats: int = 7
    output: str = "outputs/bench"
