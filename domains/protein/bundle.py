"""Rebuild `chains.npz` from packs of PDB chains: python -m domains.protein.bundle PACKS_FOLDER

The packs are extracts of Debian's promod3-data (NOTICE), one .npz.xz each: `train_deepcov` and `train_extra_le300` to
train on, `val` to test on. No chain of the first two is similar to one of `val` (MMseqs2, E < 1e-3). Of each cluster
at 30 % identity (`splits.tsv`) at most one chain is taken, so that the three splits here share no cluster.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from domains.protein.sources import BUNDLE, pack_arrays, read_clusters

LONGEST = 150  # residues
SIZES = {"test": 60, "val": 40, "train": 900}  # chains
Pack = dict[str, dict[str, np.ndarray]]  # chain name -> its arrays


def main(folder: Path) -> None:
    deepcov, more, tested = (
        short_chains(folder / f"{name}.npz.xz") for name in ("train_deepcov", "train_extra_le300", "val")
    )
    cluster = read_clusters(folder / "splits.tsv", [*deepcov, *more, *tested])
    strict = representatives(deepcov, cluster, set())
    extra = representatives(more, cluster, {cluster[name] for name in strict})
    learn = list((strict | extra).items())
    test = list(representatives(tested, cluster, set()).items())
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


def short_chains(path: Path) -> Pack:
    """Read the short chains of a pack: sequence (L,) of bytes, profile (L, 20) in 1/255, N, CA, C (L, 3, 3) in 0.01
    Å."""
    return {
        chain.name: {"sequence": chain.letters, "profile": chain.profile, "backbone": chain.backbone}
        for chain in pack_arrays(path)
        if len(chain.letters) <= LONGEST
    }


def representatives(pack: Pack, cluster: dict[str, str], taken: set[str]) -> Pack:
    """Return one chain for each cluster not in `taken`, in a fixed pseudo-random order."""
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
