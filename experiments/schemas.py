"""The typed dataclasses behind the YAML files, so that `optimizer.lr=abc` and unknown keys are errors."""

from hydra.core.config_store import ConfigStore

from core.config import PositionConfig
from domains.config import DomainConfig
from domains.joint import config as joint
from domains.protein import config as protein
from domains.protein.masked import config as protein_language
from domains.rl import config as rl
from domains.text import config as text
from domains.vision import config as vision
from domains.vision.masked import config as masked
from experiments.config import (
    BenchConfig,
    CollectConfig,
    CompareConfig,
    DemoConfig,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    FetchConfig,
    GenerateConfig,
    ImportConfig,
    JobConfig,
    LoggerConfig,
    OptimizerConfig,
    PlanConfig,
    PredictConfig,
    TrainConfig,
    TrainerConfig,
    TransferConfig,
)


def register() -> None:
    """Register the schemas with Hydra; a YAML file extends one by `defaults: [/schema/NAME@_here_]`."""
    store = ConfigStore.instance().store
    schemas = {
        "train": TrainConfig,
        "evaluate": EvaluateConfig,
        "predict": PredictConfig,
        "explain": ExplainConfig,
        "collect": CollectConfig,
        "fetch": FetchConfig,
        "generate": GenerateConfig,
        "import": ImportConfig,
        "export": ExportConfig,
        "demo": DemoConfig,
        "compare": CompareConfig,
        "transfer": TransferConfig,
        "job": JobConfig,
        "plan": PlanConfig,
        "bench": BenchConfig,
        "domain": DomainConfig,
        "position": PositionConfig,
        "optimizer": OptimizerConfig,
        "trainer": TrainerConfig,
        "logger": LoggerConfig,
        "vision_masked": masked.ModelConfig,
    }
    domains = {
        "vision": vision,
        "protein": protein,
        "protein_language": protein_language,
        "rl": rl,
        "text": text,
        "joint": joint,
    }
    for name, domain in domains.items():
        schemas |= {f"{name}_data": domain.DataConfig, f"{name}_model": domain.ModelConfig}
    for name, node in schemas.items():
        store(group="schema", name=name, node=node)
