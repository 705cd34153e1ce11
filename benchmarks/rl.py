"""Episodes of HalfCheetah-v5 by one decision transformer: ours, and transformers' stepped as its documentation does.

All have the same random weights (128 wide, 3 layers, a context of 20 steps) and play whole episodes of 1,000 steps:
theirs one at a time, ours a batch at a time, exact and with a cache (domains/rl/agents.py). They take turns.

    python benchmarks/rl.py [--batch 16] [--turns 5]

Prints a table and writes docs/rl_speed.json. Steps are those of the environment, which is a part of the time.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import DecisionTransformerConfig, DecisionTransformerModel

from domains.rl.adapter import Adapter
from domains.rl.agents import CachedPolicy, ReturnConditionedPolicy
from domains.rl.convert import from_decision_transformer
from domains.rl.environments import make
from domains.rl.rollout import rollout
from experiments.environment import environment
from experiments.runs import write_json

ENV, CONTEXT, TARGET, SCALE = "HalfCheetah-v5", 20, 6000.0, 1000.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--turns", type=int, default=5)
    args = options.parse_args()
    torch.manual_seed(0)
    sizes: Any = {"state_dim": 17, "act_dim": 6, "max_length": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    theirs: Any = DecisionTransformerModel(DecisionTransformerConfig(**sizes)).eval()  # 128 wide, 3 layers, 1 head
    known = {"mean": [0.0] * 17, "std": [1.0] * 17, "env_id": ENV, "context": CONTEXT}
    known |= {"return_scale": SCALE, "best_return": TARGET}
    ours = from_decision_transformer(theirs.config.to_dict(), theirs.state_dict(), known).eval()

    players = {
        "transformers, one at a time": lambda: documented(theirs, seed=0),
        f"exact, {args.batch} at a time": lambda: batched(ReturnConditionedPolicy, ours, args.batch),
        f"cached, {args.batch} at a time": lambda: batched(CachedPolicy, ours, args.batch),
    }
    speeds: dict[str, list[float]] = {name: [] for name in players}
    first: dict[str, np.ndarray] = {}  # actions of one and the same episode
    for turn in range(args.turns):
        for name, play in list(players.items())[:: 1 if turn % 2 else -1]:  # alternate the order
            began = time.perf_counter()
            actions = play()  # (N, T, A)
            speeds[name].append(actions.shape[0] * actions.shape[1] / (time.perf_counter() - began))
            first[name] = actions[0, :CONTEXT]
    slow, rows = next(iter(players)), []
    for name in players:
        ratio = median(a / b for a, b in zip(speeds[name], speeds[slow], strict=True))
        apart = float(np.abs(first[name] - first[slow]).max())
        rows.append({"what": name, "steps_per_second": median(speeds[name]), "times": ratio, "actions_apart": apart})
        print({k: round(v, 7) if isinstance(v, float) else v for k, v in rows[-1].items()})
    settings_record = {"environment": ENV, "context": CONTEXT, "turns": args.turns}
    write_json(Path(__file__).parents[1] / "docs" / "rl_speed.json", {"rows": rows, **settings_record, **environment()})


def batched(agent: type[ReturnConditionedPolicy], adapter: Adapter, episodes: int) -> np.ndarray:
    seeds = list(range(episodes))
    return rollout(ENV, agent(adapter, [TARGET] * episodes, seeds), seeds).actions


@torch.no_grad()
def documented(model: Any, seed: int) -> np.ndarray:
    """Play one episode as huggingface.co/blog/train-decision-transformers does, line by line."""
    env = make(ENV)
    mean, std = torch.zeros(17), torch.ones(17)
    states = torch.from_numpy(env.reset(seed=seed)[0]).float()[None]  # (t, S)
    actions, rewards = torch.zeros(0, 6), torch.zeros(0)
    to_go, steps = torch.full((1, 1), TARGET / SCALE), torch.zeros(1, 1, dtype=torch.long)
    over = False
    while not over:
        actions, rewards = torch.cat([actions, torch.zeros(1, 6)]), torch.cat([rewards, torch.zeros(1)])
        actions[-1] = get_action(model, (states - mean) / std, actions, to_go, steps)
        state, reward, terminated, truncated, _ = env.step(actions[-1].numpy())
        states = torch.cat([states, torch.from_numpy(state).float()[None]])
        rewards[-1] = float(reward)
        to_go = torch.cat([to_go, to_go[:, -1:] - float(reward) / SCALE], 1)
        steps = torch.cat([steps, torch.full((1, 1), len(actions))], 1)
        over = terminated or truncated
    env.close()
    return actions.numpy()[None]


def get_action(model: Any, states: torch.Tensor, actions: torch.Tensor, to_go: torch.Tensor, steps: torch.Tensor):
    """Return the last action from the last steps, left-padded."""
    states, actions = states[None, -CONTEXT:], actions[None, -CONTEXT:]
    to_go, steps = to_go[:, -CONTEXT:, None], steps[:, -CONTEXT:]
    padding = CONTEXT - states.shape[1]
    mask = torch.cat([torch.zeros(padding), torch.ones(states.shape[1])]).long()[None]
    predicted = model(
        states=torch.cat([torch.zeros(1, padding, 17), states], 1),
        actions=torch.cat([torch.zeros(1, padding, 6), actions], 1),
        rewards=None,
        returns_to_go=torch.cat([torch.zeros(1, padding, 1), to_go], 1),
        timesteps=torch.cat([torch.zeros(1, padding, dtype=torch.long), steps], 1),
        attention_mask=mask,
    )
    return predicted.action_preds[0, -1]


if __name__ == "__main__":
    main()
