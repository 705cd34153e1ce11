"""Rebuilds `chains.npz` from packs of PDB chains: python -m domains.protein.bundle PACKS_FOLDER

The packs are extracts of Debian's promod3-data (NOTICE), one .npz.xz each: `train_deepcov` and `train_extra_le300` to
learn from, `val` to test on. No chain of the first two is similar to one of `val` (MMseqs2, E < 1e-3). Of each cluster
at 30 % identity (`splits.tsv`) at most one chain is taken, so that the three splits here share no cluster.
"""

import csv
import hashlib
import io
import lzma
import sys
from pathlib import Path

import numpy as np

from domains.protein.sources import BUNDLE

LONGEST = 150  # residues
SIZES = {"test": 60, "val": 40, "train": 900}  # chains
Pack = dict[str, dict[str, np.ndarray]]  # chain name -> its arrays


def main(folder: Path) -> None:
    with open(folder / "splits.tsv", newline="") as file:
        cluster = {row["chain"]: row["cluster30"] for row in csv.DictReader(file, delimiter="\t")}
    strict = representatives(read_pack(folder / "train_deepcov.npz.xz"), cluster, set())
    extra = representatives(read_pack(folder / "train_extra_le300.npz.xz"), cluster, {cluster[name] for name in strict})
    learn = list((strict | extra).items())
    test = list(representatives(read_pack(folder / "val.npz.xz"), cluster, set()).items())
    assert not {cluster[name] for name, _ in learn} & {cluster[name] for name, _ in test}
    splits = {
        "train": learn[SIZES["val"] : SIZES["val"] + SIZES["train"]],
        "val": learn[: SIZES["val"]],
        "test": test[: SIZES["test"]],
    }
    for split, chains in splits.items():
        assert len(chains) == SIZES[split], f"only {len(chains)} chains for {split}"
    write(splits, BUNDLE)
    print(f"wrote {BUNDLE}: {BUNDLE.stat().st_size / 1e6:.2f} MB")


def read_pack(path: Path) -> Pack:
    """The short chains: sequence (L,) of bytes, profile (L, 20) in 1/255, N, CA and C (L, 3, 3) in 0.01 Å."""
    with lzma.open(path) as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as pack:
        arrays = {key: pack[key] for key in ("names", "length", "seq", "dca", "rel", "profile")}
    chains, end = {}, 0
    for name, length in zip(arrays["names"], arrays["length"], strict=True):
        start, end = end, end + int(length)
        if length > LONGEST:
            continue
        ca = arrays["dca"][:, start:end].astype(int).cumsum(1).T  # (L, 3)
        n, c, _ = arrays["rel"][:, start:end].astype(int).T.reshape(-1, 3, 3).swapaxes(0, 1)  # N, C, O seen from CA
        chains[str(name)] = {
            "sequence": arrays["seq"][start:end],
            "profile": arrays["profile"][:, start:end].T,
            "backbone": np.stack([ca + n, ca, ca + c], 1),
        }
    return chains


def representatives(pack: Pack, cluster: dict[str, str], taken: set[str]) -> Pack:
    """One chain for each cluster that is not `taken`, in an order that is arbitrary but always the same."""
    chosen: Pack = {}
    taken = set(taken)
    for name in sorted(pack, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if cluster[name] not in taken:
            taken.add(cluster[name])
            chosen[name] = pack[name]
    return chosen


def write(splits: dict[str, list[tuple[str, dict[str, np.ndarray]]]], path: Path) -> None:
    named = [(split, name, chain) for split, chains in splits.items() for name, chain in chains]
    steps = [
        np.diff(chain["backbone"].reshape(-1, 3), axis=0, prepend=chain["backbone"].reshape(-1, 3)[:1])
        for *_, chain in named
    ]
    np.savez_compressed(
        path,
        split=np.array([split for split, *_ in named]),
        name=np.array([name for _, name, _ in named]),
        length=np.array([len(chain["sequence"]) for *_, chain in named], np.int16),
        sequence=np.concatenate([chain["sequence"] for *_, chain in named]).view(np.uint8),
        profile=np.concatenate([chain["profile"] for *_, chain in named]).T.astype(np.uint8),
        backbone=np.concatenate(steps).T.astype(np.int16),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
