"""Ulysses on two real processes against `attend` on one. All sizes are different primes, times the ranks."""

import json
import os
import subprocess
import sys
import traceback
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from core.attention import attend
from core.bias import LowRankBias, PairBias
from core.config import PositionConfig, PositionKind, TransformerConfig
from core.layers import Transformer
from core.masks import Causal, Dense, Documents, Padding, Window
from core.parallel import Ulysses
from core.positions import make_position

P, B, H, G, L, M, D = 2, 3, 12, 4, 10, 14, 5


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IDS = torch.tensor([[0] * 3 + [1] * 11, [0] * 8 + [1] * 6, [5] * 14])
CASES = {
    "everything": {},
    "causal": {"mask": Causal()},
    "scale": {"mask": Window(3) & Causal(), "scale": 0.3},
    "causal & documents": {"mask": Causal() & Documents(IDS)},
    "padding": {"mask": Padding(IDS != 1)},
    "a table for each head": {"mask": Dense(random(B, H, L, M) > 0)},
    "joined": {"mask": ~Dense(random(1, H, L, M) > 1) & (Causal() | Dense(random(B, 1, L, M, seed=1) > 0))},
    "pairs": {"mask": Causal(), "pairs": (1, H, L, M)},
    "pairs for all heads": {"pairs": (B, 1, L, M)},
    "low rank": {"mask": Padding(IDS != 1), "low": (H, H)},
    "low rank for all heads": {"low": (H, 1)},
    "both": {"mask": Causal(), "pairs": (1, H, 1, M), "low": (1, H)},
}


def inputs(pairs=None, low=None, num_heads=G, seed=0):
    """q, k, v of the whole sequence and a bias, all trained; the same on every rank."""
    trained = [random(*shape, seed=seed) for shape in ((B, H, L, D), (B, num_heads, M, D), (B, num_heads, M, D))]
    bias = None
    if pairs:
        trained.append(random(*pairs, seed=1))
        bias = PairBias(trained[-1])
    if low:
        u, w = random(1, low[0], L, 3, seed=2), random(B, low[1], M, 3, seed=3)
        trained += [u, w]
        bias = LowRankBias(u, w) if bias is None else bias + LowRankBias(u, w)
    return [t.requires_grad_() for t in trained], bias


def mine(t, rank):
    return t.chunk(P, -2)[rank]


def equals_one_process(rank, heads, pairs=None, low=None, **options):
    (q, k, v, *added), bias = inputs(pairs, low, heads)
    weights = random(B, H, L, D, seed=4)
    whole = attend(q, k, v, bias=bias, **options)
    want = torch.autograd.grad((whole * weights).sum(), (q, k, v, *added))
    slices = [mine(t, rank).detach().requires_grad_() for t in (q, k, v)]
    out = Ulysses()(*slices, bias=bias, **options)
    got = torch.autograd.grad((out * mine(weights, rank)).sum(), (*slices, *added))
    expected = (mine(whole, rank), *(mine(t, rank) for t in want[:3]), *want[3:])
    for ours, theirs in zip((out, *got), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def leading_dimensions_and_single_precision(rank):
    q, k, v = (t.detach().float()[:2].unflatten(0, (2, 1)) for t in inputs(num_heads=H)[0])
    whole = attend(q, k, v)
    torch.testing.assert_close(Ulysses()(*(mine(t, rank) for t in (q, k, v))), mine(whole, rank), rtol=0, atol=1e-6)


def a_group_of_one(rank):
    """Every rank is a group by itself, and so holds whole sequences."""
    alone = [dist.new_group([r]) for r in range(P)][rank]
    q, k, v = inputs(seed=rank)[0]
    torch.testing.assert_close(Ulysses(alone)(q, k, v, mask=Causal()), attend(q, k, v, mask=Causal()))


def a_whole_trunk(rank):
    """Every layer attends over both halves of the text."""
    torch.manual_seed(0)
    config = TransformerConfig(dim=24, depth=2, num_heads=6, num_kv_heads=2)
    trunk = Transformer(config, make_position(PositionConfig(PositionKind.rotary), config, (L,))).double()
    x = random(B, L, 24)
    want = trunk(x, mask=Causal())
    for block in trunk.blocks:
        vars(block.get_submodule("mixer"))["attend"] = Ulysses()
    at = torch.arange(L)[:, None]
    torch.testing.assert_close(trunk(mine(x, rank), mask=Causal(), positions=mine(at, rank)), mine(want, rank))


def errors(rank):
    q, k, v = (mine(t, rank).detach() for t in inputs()[0])
    one = k[:, :1]
    bias = torch.zeros(1, 2 * H, L, M, dtype=q.dtype)
    for message, bad in {
        "the 3 query heads must be a multiple of the 2 ranks": lambda: Ulysses()(q[:, :3], one, one),
        "the 1 key/value heads must be a multiple of the 2 ranks": lambda: Ulysses()(q, one, one),
        r"slices of one length; their \(queries, keys\) are \[\(5, 7\), \(4, 7\)\]": lambda: Ulysses()(
            q[:, :, rank:], k, v
        ),
        "attend needs q": lambda: Ulysses()(q, k[..., 1:], v),
        "does not broadcast": lambda: Ulysses()(q, k, v, bias=bias),
        r"met attention over \(3, 14\)": lambda: Ulysses()(q, k, v, mask=Padding(IDS[:, :7] > 0)),
    }.items():
        with pytest.raises(ValueError, match=message):
            bad()


CHECKS = {
    **{
        f"{kind}: {name}": partial(equals_one_process, heads=heads, **options)
        for kind, heads in (("grouped", G), ("full", H))
        for name, options in CASES.items()
    },
    "leading dimensions, single precision": leading_dimensions_and_single_precision,
    "a group of one": a_group_of_one,
    "a whole trunk": a_whole_trunk,
    "errors": errors,
}


def on_this_rank(rank: int, folder: Path):
    """All checks in step with the other rank; what each found goes to a file."""
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=P, timeout=timedelta(seconds=60))
    found = {}
    for name, check in CHECKS.items():
        try:
            check(rank)
            found[name] = "passed"
        except Exception:
            found[name] = traceback.format_exc()
        dist.barrier()
    dist.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Processes of their own: autograd cannot be forked."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ranks = [subprocess.Popen([sys.executable, __file__, str(r), str(folder)], env=paths) for r in range(P)]
    assert [rank.wait(timeout=200) for rank in ranks] == [0] * P
    return [json.loads((folder / f"{r}.json").read_text()) for r in range(P)]


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes_compute_what_one_does(found, name):
    for rank in found:
        assert rank[name] == "passed", rank[name]


if __name__ == "__main__":
    on_this_rank(int(sys.argv[1]), Path(sys.argv[2]))
