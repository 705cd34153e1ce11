"""Clustering of similar chains, so that no cluster is in two splits."""

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from domains.data_warnings import warn_data
from domains.protein.chain import Chain, to_letters

IDENTITY, COVERAGE = 0.3, 0.8  # of a chain with the representative of its cluster
Splits = dict[str, list[Chain]]


def cluster_chains(chains: Sequence[Chain]) -> list[str]:
    """Return the representative sequence of each chain's cluster, at 30 % identity.

    MMseqs2 finds the clusters; without it, a cluster holds identical sequences only, with a warning.

    Raises:
        ValueError: if MMseqs2 fails.
    """
    if program := which("mmseqs"):
        return _mmseqs(program, chains)
    warn_data(
        "mmseqs is not installed, so that chains alike in part may lie in different splits, and scores be too good; "
        "apt-get install mmseqs2, or conda install -c bioconda mmseqs2"
    )
    return [to_letters(chain.sequence) for chain in chains]


def _mmseqs(program: str, chains: Sequence[Chain]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        fasta, out = Path(folder, "in.fasta"), Path(folder, "out")
        fasta.write_text("".join(f">{n}\n{to_letters(chain.sequence)}\n" for n, chain in enumerate(chains)))
        limits = ["--min-seq-id", str(IDENTITY), "-c", str(COVERAGE), "-v", "1"]
        done = subprocess.run(
            [program, "easy-cluster", str(fasta), str(out), folder, *limits], capture_output=True, text=True
        )
        if done.returncode:
            *_, why = ["", *(done.stderr or done.stdout).strip().splitlines()]
            raise ValueError(f"mmseqs easy-cluster failed: {why or f'exit status {done.returncode}'}")
        pairs = [line.split() for line in Path(f"{out}_cluster.tsv").read_text().splitlines()]
    of = {int(member): int(first) for first, member in pairs}
    return [to_letters(chains[of.get(n, n)].sequence) for n in range(len(chains))]  # MMseqs2 leaves out very short ones


def check_shares(val: float, test: float) -> None:
    """Raise ValueError if these shares leave nothing to train on."""
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"data.val_share={val} and data.test_share={test} must leave chains to train on")


def check_filled(splits: Splits) -> None:
    """Raise ValueError if a split is empty."""
    for split, chains in splits.items():
        if not chains:
            other = "smaller data.val_share and data.test_share" if split == "train" else f"a larger data.{split}_share"
            raise ValueError(f"no chain is left for {split}; give more chains, or {other}")


def split_by_cluster(chains: Sequence[Chain], val: float, test: float) -> Splits:
    """Return three splits without common clusters; the same for every seed and every order of the chains.

    Args:
        val, test: the shares of the clusters.
    """
    splits: Splits = {"train": [], "val": [], "test": []}
    for chain, cluster in zip(chains, cluster_chains(chains), strict=True):
        draw = hash_fraction(cluster)
        splits["test" if draw < test else "val" if draw < test + val else "train"].append(chain)
    return splits


def hash_fraction(name: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
