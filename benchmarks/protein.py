"""Ablations of the pair model at equal CPU time, compared with a plain dilated convolution network.

All use the same chains, features, loss and optimizer, and as many training steps as fit into the same CPU time; the
learning rate schedule ends with them. Contacts are scored on the test chains.

    python benchmarks/protein.py FOLDER [--minutes 5] [--seeds 0 1 2] [--models whole …] [--alignments FOLDER]

FOLDER holds packs of chains (data=chain_packs). Adds to benchmarks/protein.json after each run, and leaves out what is
there already.

Shapes: B batch · L residues · P pair width · K bins of distance
"""

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.bias import PairBias
from core.config import PositionConfig, PositionKind
from domains.adapter import Batch, mean_loss
from domains.protein.adapter import Adapter, Prediction
from domains.protein.config import Channel, DataConfig, ModelConfig, Source
from domains.protein.data import Data
from domains.protein.evaluate import SHARES, run_model
from domains.protein.metrics import distances, precision
from domains.sampling import StepDataset
from experiments.config import OptimizerConfig, OptimizerName
from experiments.environment import environment
from experiments.runs import write_json
from experiments.training.optimizers import make_optimizer, make_schedule

TRIAL = 10  # steps that are timed to know how many there will be
FILE = Path(__file__).with_suffix(".json")
OPTIMIZER = OptimizerConfig(name=OptimizerName.muon, lr=3e-3)
SIZES: dict[str, Any] = {"dim": 96, "num_heads": 4, "mlp_ratio": 2, "pair_dim": 32}


class Convolutions(Adapter):
    """z + W conv(relu(conv(relu(norm z)))) with dilations 1, 2, 4, 8 in turn, on the same first pairs.

    Source: Adhikari 2020 (DEEPCON), without its dropout.
    """

    def __init__(self, depth: int, *others: Any):
        super().__init__(*others)
        P = self.config.pair_dim
        for part in ("transformer", "blocks", "outer_product_out"):  # none of these
            setattr(self, part, nn.ModuleList())
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, P),
                nn.ReLU(),
                nn.Conv2d(P, P, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(P, P, 3, padding=2 ** (n % 4), dilation=2 ** (n % 4)),
            )
            for n in range(depth)
        )

    def forward(self, batch: Batch, **_: Any) -> Prediction:
        tokens = self.tokens(batch)
        z, b = self.pair_representation(batch, tokens.x)
        pair_mask = batch["seq_mask"][:, :, None] & batch["seq_mask"][:, None]  # (B, L, L)
        z = (z * pair_mask[..., None]).permute(0, 3, 1, 2)  # (B, P, L, L)
        for layer in self.layers:
            z = z + layer(z)
        z = z.permute(0, 2, 3, 1)
        logits = self.distogram(self.norm(z + z.transpose(1, 2)))
        assert b is not None
        assert self.baseline is not None
        logits = logits + self.baseline.logits((b + b.mT) / 2)
        return Prediction(logits, None if self.ss8_head is None else self.ss8_head(tokens.x))


class NoBias(nn.Module):
    def make_bias(self, z: Tensor, pair_mask: Tensor) -> PairBias:
        return PairBias(z.new_zeros(len(z), SIZES["num_heads"], z.shape[1], z.shape[2]))


def make(name: str, spec: dict[str, Any]) -> Adapter:
    """One of the models that are compared."""
    position = PositionConfig(PositionKind.rotary)
    if name == "convolutions":
        return Convolutions(16, ModelConfig(**SIZES, depth=1), position, spec)
    parts = {
        "triangle_multiplication": name != "no triangles",
        "triangle_attention_interval": 2 * (name == "with axial"),
    }
    model = Adapter(ModelConfig(**SIZES, depth=4, **parts), position, spec)
    for block in model.blocks:
        if name == "no pair bias":
            block.bias = NoBias()
    return model


MODELS = ("whole", "with axial", "no triangles", "no pair bias", "convolutions")


def train(model: Adapter, data: Data, seconds: float, seed: int) -> int:
    """Returns the number of steps."""
    batches = StepDataset(data.size("train"), data.config.batch_size, seed, data._train_batch)

    def learn(optimizer: torch.optim.Optimizer, step: int) -> None:
        batch = batches[step]
        optimizer.zero_grad()
        mean_loss(model.loss(model(batch), batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trial = make_optimizer(model.train(), OPTIMIZER)
    learn(trial, 0)
    start = process_time()
    for step in range(TRIAL):
        learn(trial, step)
    steps = int(seconds / (process_time() - start) * TRIAL)
    model.load_state_dict(fresh)
    optimizer = make_optimizer(model, OPTIMIZER)
    schedule = make_schedule(optimizer, OPTIMIZER, steps)
    for step in range(steps):
        learn(optimizer, step)
        schedule.step()
    return steps


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder")
    options.add_argument("--alignments")
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    args = options.parse_args()
    channels = [Channel.baseline]
    if args.alignments:
        channels += [Channel.sites, Channel.covariance, Channel.inverse]
    config = DataConfig(
        source=Source.packs, path=args.folder, alignments=args.alignments, channels=channels, val_share=0.01
    )
    data = Data(config)
    data.setup()
    true = [distances(chain) for chain in data.splits["test"]]
    file: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}
    known = [file | row for row in file.pop("rows")]  # each says when and where; once the file said it for all
    for seed in args.seeds:  # one seed of all models before the next
        for name in args.models:
            what = {"model": name, "minutes": args.minutes, "seed": seed, "alignments": bool(args.alignments)}
            if any(what.items() <= row.items() for row in known):
                continue
            torch.manual_seed(seed)
            model = make(name, data.spec())
            start = process_time()
            steps = train(model, data, 60 * args.minutes, seed)
            taken = process_time() - start
            contacts = run_model(model, data.eval_dataloader("test")).contacts
            scores = {
                f"P@{cut}": float(np.mean([precision(c, d, share) for c, d in zip(contacts, true, strict=True)]))
                for cut, share in SHARES.items()
            }
            size = sum(p.numel() for p in model.parameters())
            told = {**what, "steps": steps, "cpu_seconds": taken, "parameters": size, **scores}
            print(told, flush=True)
            known.append(told | environment())
            write_json(FILE, {"rows": known})


if __name__ == "__main__":
    main()
