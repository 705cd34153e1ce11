"""The end of an episode, for `attend explain`.

Shapes: B copies · K time steps · A number of actions, or width of one
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domains.adapter import Batch, to_device
from domains.explanation import Element, Explanation, Form, Picture, percent, png
from domains.rl.actions import Discrete
from domains.rl.adapter import Adapter
from domains.rl.agents import make_policy
from domains.rl.data import Data
from domains.rl.env_specs import format_env
from domains.rl.evaluate import FIRST_SEED
from domains.rl.predict import replay_or_warn, run_env
from domains.rl.rollout import rollout
from domains.rl.trajectories import windows

WIDTH = 160  # pixels of a frame


@torch.inference_mode()
def explanations(adapter: Adapter, source: str) -> list[Explanation]:
    """Return an episode of the run's environment, with the best return of the training data as its target: the last
    steps that fit into the context.

    Args:
        source: the environment's id, for the episode of seed 0; or a seed.
    Raises:
        ValueError: if `source` is neither, or the run has no environment.
    """
    seed = int(source) if source.isdecimal() else 0
    env = run_env(adapter, adapter.spec["env_id"] if source.isdecimal() else source)
    name, offset = format_env(env), adapter.spec.get("offset")
    target = adapter.spec["best_return"]
    trajectories = rollout(env, make_policy(adapter, [target], [seed]), [seed])
    length = int(trajectories.lengths[0])
    first = max(0, length - adapter.spec["context"])
    returns_to_go = trajectories.returns_to_go(np.array([target]), delayed=adapter.spec.get("delayed", False))
    batch = windows(trajectories, returns_to_go, np.array([0]), np.array([first]), length - first, offset)
    frames, _ = replay_or_warn(
        "the picture of each step", env, seed, trajectories.actions[0, :length], range(first, length)
    )
    small = [frame.convert("RGB").resize((WIDTH, round(WIDTH * frame.height / frame.width))) for frame in frames]
    batch, asked = to_device(batch, adapter.device), [("return asked for", f"{target:g}")]
    return [
        Explanation(
            name=f"{name}, seed {seed}",
            form=Form.trajectory,
            batch=batch,
            elements=elements(adapter, batch),
            answers=[
                ("return", f"{trajectories.returns[0]:g}"),
                *(asked if adapter.config.return_conditioned else []),
                ("steps", f"{length}; here from {first} to {length - 1}"),
                *last_action(adapter, batch),
            ],
            distribution=lambda predictions: distribution(adapter, predictions),
            about=told(adapter, length - first),
            pictures=[
                Picture(png(frame.quantize(16)), f"{name} before step {step}")
                for step, frame in enumerate(small, first)
            ],
        )
    ]


def example(adapter: Adapter, data: Data) -> Explanation:
    """Return a new episode: the first one of the evaluation."""
    return explanations(adapter, str(FIRST_SEED))[0]


def elements(adapter: Adapter, batch: Batch) -> list[Element]:
    """Return the elements of each step: return-to-go (if the model has it), state and action."""
    found, offset = [], torch.tensor(adapter.spec.get("offset") or 0.0, dtype=torch.float64, device=adapter.device)
    for k, step in enumerate(batch["timesteps"][0].tolist()):
        state, action = batch["states"][0, k] + offset, batch["actions"][0, k]
        numbers = f" ({spelled(state)})" if state.dim() == 1 and len(state) <= 4 else ""
        if adapter.config.return_conditioned:
            found.append(Element("R", f"step {step}, return to go {batch['returns_to_go'][0, k]:g}", (k,)))
        found.append(Element("s", f"step {step}, state{numbers}", (k,)))
        found.append(Element("a", f"step {step}, action {spelled(action)}", (k,)))
    return found


def distribution(adapter: Adapter, predictions: Tensor) -> Tensor:
    """Return the probabilities of discrete actions, (B, K, A). A vector is a prediction of the mean: each number, as a
    fraction p of its range, becomes the pair (p, 1 - p), (B, K·A, 2), so that total variation is the change of p."""
    if isinstance(adapter.actions, Discrete):
        return predictions.softmax(-1)
    part = ((adapter.actions.normalize(predictions) + 1) / 2).flatten(1)  # (B, K·A)
    return torch.stack([part, 1 - part], -1)


def told(adapter: Adapter, steps: int) -> str:
    if isinstance(adapter.actions, Discrete):
        return f"{steps} predictions, one at each state: the probability of each of {adapter.actions.width} actions"
    numbers = adapter.actions.width
    return f"{steps * numbers} predictions, every number of the action at each state, in parts of its range"


def last_action(adapter: Adapter, batch: Batch) -> list[tuple[str, str]]:
    predictions: Any = adapter(batch)[0, -1]  # (A,)
    if isinstance(adapter.actions, Discrete):
        return [(f"last action {a}", percent(p)) for a, p in enumerate(predictions.softmax(-1).tolist())]
    return [("last action", spelled(predictions))]


def spelled(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.flatten().tolist())
