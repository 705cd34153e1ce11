"""The configuration of the rl domain: plain dataclasses, without torch."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from core.config import TransformerConfig


class Source(Enum):
    cartpole = "cartpole"  # Gymnasium's CartPole-v1, collected by scripted controllers of mixed skill
    trajectories = "trajectories"  # the .npz file data.path (docs/data.md); attend collect writes such files
    minari = "minari"  # the local Minari data set data.name (minari download NAME)


@dataclass
class DataConfig:
    """The trajectories, and how the model sees them."""

    domain: str = "rl"
    source: Source = Source.cartpole
    path: Any = None  # path of the .npz file, or a list of paths: each file is split on its own
    name: str | None = None  # name of the Minari data set
    env_id: str | None = None  # a Gymnasium id; null: that of the data; none: train without an environment
    episodes: int = 600  # collected by source=cartpole, for the three splits together
    held_out: float = 0.1  # share of the episodes for validation, and the same share for the test
    top_share: float = 1.0  # share of the steps to train on, from the best episodes (%BC of Chen et al. 2021)
    delayed: bool = False  # sparse reward: the whole return comes at the end of an episode
    context: int = 10  # time steps in a sample, and in the agent's context
    kv_cache: bool = False  # play from cached keys and values: faster; with model.mixer=softmax exact while t < context
    temperature: float = 1.0  # for sampling discrete actions; below 1 closer to the most likely action
    batch_size: int = 64  # windows per training step, over all devices
    workers: int = 0  # processes that prepare batches; 0: in the training process


@dataclass
class ModelConfig(TransformerConfig):
    """A decision transformer; or behaviour cloning, the same model without returns."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # capabilities that the mixer needs (core/config.py)
    domain: str = "rl"
    embed_norm: bool = True  # normalize tokens before the first block
    return_conditioned: bool = True  # with return-to-go tokens; false: behaviour cloning
    target_quantile: float | None = None  # quantile of the returns-to-go from a state, predicted as the target return
    patch_size: int = 8  # for image states, in pixels: 1, 2, 4, 8 …
