"""What configures the rl domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from core.config import TransformerConfig


class Source(Enum):
    cartpole = "cartpole"  # Gymnasium's CartPole-v1, played on the spot by scripted controllers of mixed skill
    trajectories = "trajectories"  # the .npz file data.path (docs/data.md); attend collect writes such files
    minari = "minari"  # the Minari data set data.name of this machine (minari download NAME)


class Recall(Enum):
    """How the agent knows the steps before, when it plays (domains/rl/agents.py)."""

    exact = "exact"  # the last `context` steps are computed anew
    cached = "cached"  # keys and values are kept: faster, and with model.mixer=softmax exact only while t < context


@dataclass
class DataConfig:
    """Which trajectories, and how much of one the model sees at once."""

    domain: str = "rl"
    source: Source = Source.cartpole
    path: Any = None  # of the .npz file, or a list of them: each is split on its own
    name: str | None = None  # of the Minari data set
    environment: str | None = None  # a Gymnasium id; that of the data if None; "none" to train without playing
    episodes: int = 600  # collected by source=cartpole, for the three splits together
    held_out: float = 0.1  # share of the episodes for validation, and as many again for the test
    top_share: float = 1.0  # train on so much of the steps, those of the best episodes (%BC of Chen et al. 2021)
    delayed: bool = False  # the whole return comes at the end of an episode
    context: int = 10  # time steps in a sample, and in the memory of the agent
    recall: Recall = Recall.exact
    temperature: float = 1.0  # at which the agent draws actions that are numbers; below 1 nearer to the likeliest
    batch_size: int = 64  # stretches of an episode a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself


@dataclass
class ModelConfig(TransformerConfig):
    """A decision transformer; or behaviour cloning, the same without returns."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # of a mixer (core/config.py)
    domain: str = "rl"
    embed_norm: bool = True  # normalise tokens before the first block
    returns: bool = True  # tokens of what is still to come
    target_quantile: float | None = None  # of the returns-to-go from a state, predicted: a target that nobody must know
    patch_size: int = 8  # of states that are images, in pixels: 1, 2, 4, 8 …
