"""Which chains are alike, so that no split holds a relative of a chain in another."""

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from domains.data_warnings import warn_data
from domains.protein.chain import Chain, spelled

IDENTITY, COVERAGE = 0.3, 0.8  # of a chain with the representative of its cluster
Splits = dict[str, list[Chain]]


def clusters(chains: Sequence[Chain]) -> list[str]:
    """The sequence that stands for the cluster of each chain; chains of one cluster are alike at 30 % identity.

    MMseqs2 finds them; without it a warning says so, and a cluster holds the chains of one sequence alone.

    Raises:
        ValueError: if MMseqs2 fails.
    """
    if program := which("mmseqs"):
        return _mmseqs(program, chains)
    warn_data(
        "mmseqs is not installed, so that chains alike in part may lie in different splits, and scores be too good; "
        "apt-get install mmseqs2, or conda install -c bioconda mmseqs2"
    )
    return [spelled(chain.sequence) for chain in chains]


def _mmseqs(program: str, chains: Sequence[Chain]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        fasta, out = Path(folder, "in.fasta"), Path(folder, "out")
        fasta.write_text("".join(f">{n}\n{spelled(chain.sequence)}\n" for n, chain in enumerate(chains)))
        limits = ["--min-seq-id", str(IDENTITY), "-c", str(COVERAGE), "-v", "1"]
        done = subprocess.run(
            [program, "easy-cluster", str(fasta), str(out), folder, *limits], capture_output=True, text=True
        )
        if done.returncode:
            *_, why = ["", *(done.stderr or done.stdout).strip().splitlines()]
            raise ValueError(f"mmseqs easy-cluster failed: {why or f'exit status {done.returncode}'}")
        pairs = [line.split() for line in Path(f"{out}_cluster.tsv").read_text().splitlines()]
    of = {int(member): int(first) for first, member in pairs}
    return [spelled(chains[of.get(n, n)].sequence) for n in range(len(chains))]  # some it leaves out, as too short


def check_shares(val: float, test: float) -> None:
    """Raises ValueError if these shares leave nothing to train on."""
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"data.val_share={val} and data.test_share={test} must leave chains to train on")


def check_filled(splits: Splits) -> None:
    """Raises ValueError if a split is empty."""
    for split, chains in splits.items():
        if not chains:
            other = "smaller data.val_share and data.test_share" if split == "train" else f"a larger data.{split}_share"
            raise ValueError(f"no chain is left for {split}; give more chains, or {other}")


def split_by_cluster(chains: Sequence[Chain], val: float, test: float) -> Splits:
    """Three splits that share no cluster; the same for every seed, and for every order of the chains.

    Args:
        val, test: the shares of clusters that these two get.
    """
    splits: Splits = {"train": [], "val": [], "test": []}
    for chain, cluster in zip(chains, clusters(chains), strict=True):
        draw = drawn(cluster)
        splits["test" if draw < test else "val" if draw < test + val else "train"].append(chain)
    return splits


def drawn(name: str) -> float:
    """A number in [0, 1) that looks random, and is the same for a name everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
