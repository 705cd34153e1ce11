"""Where chains come from: packs, Debian's package, a folder of structures; and that no split has kin in another."""

import csv
import io
import lzma
import struct
import sys
import tarfile
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch

import domains.protein.clusters
from core.config import PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.data_warnings import DataWarning
from domains.protein.adapter import Adapter
from domains.protein.alphabet import AMINO_ACIDS, SS8_STATES, encode_residues
from domains.protein.chain import Chain, resolved_mask, to_letters, virtual_cb
from domains.protein.clusters import cluster_chains, hash_fraction, split_by_cluster
from domains.protein.config import Channel, DataConfig, ModelConfig, Source
from domains.protein.data import Data
from domains.protein.evaluate import evaluate
from domains.protein.predict import predict
from domains.protein.promod3 import read_promod3
from domains.protein.sources import load_splits, read_pack


def make_backbone(length: int, rng: np.random.Generator) -> np.ndarray:
    """N, CA, C, O (N, 4, 3) in 0.01 Å, of a walk with steps of 3.8 Å."""
    step = rng.standard_normal((length, 3))
    ca = 5000 + (380 * step / np.linalg.norm(step, axis=1, keepdims=True)).cumsum(0)
    return (ca[:, None] + rng.integers(-90, 90, (length, 4, 3)) * np.array([1, 0, 1, 1])[:, None]).round().astype(int)


@pytest.fixture(scope="module")
def made():
    """name -> (letters, backbone, profile in 1/255) of chains of 23 to 52 residues."""
    rng = np.random.default_rng(0)
    chains = {}
    for n in range(30):
        letters = "".join(AMINO_ACIDS[k] for k in rng.integers(0, 20, 23 + n))
        chains[f"{1000 + n}_A"] = (letters, make_backbone(23 + n, rng), rng.integers(0, 25, (23 + n, 20)))
    return chains


def states(letters: str) -> bytes:
    """A secondary structure that follows from the letters, so that it can be learnt; " " is another word for "-"."""
    return "".join("GHIBEST- "[AMINO_ACIDS.index(letter) % 9] for letter in letters).encode()


def write_pack(path: Path, chains: dict, **changes) -> None:
    parts = [(backbone[:, 1], backbone[:, [0, 2, 3]] - backbone[:, 1:2]) for _, backbone, _ in chains.values()]
    arrays = {
        "names": np.array([*chains]),
        "length": np.array([len(letters) for letters, *_ in chains.values()], np.uint16),
        "seq": np.frombuffer("".join(letters for letters, *_ in chains.values()).encode(), "S1"),
        "ss8": np.frombuffer(b"".join(states(letters) for letters, *_ in chains.values()), "S1"),
        "dca": np.concatenate([np.diff(ca, axis=0, prepend=ca[:1]) for ca, _ in parts]).T.astype(np.int16),
        "rel": np.concatenate([rel.reshape(-1, 9) for _, rel in parts]).T.astype(np.int16),
        "profile": np.concatenate([profile for *_, profile in chains.values()]).T.astype(np.uint8),
    }
    file = io.BytesIO()
    np.savez(file, **arrays | changes)
    path.write_bytes(lzma.compress(file.getvalue()))


@pytest.fixture(scope="module")
def packs(made, tmp_path_factory) -> Path:
    folder, names = tmp_path_factory.mktemp("packs"), [*made]
    write_pack(folder / "train_a.npz.xz", {name: made[name] for name in names[:14]})
    write_pack(folder / "train_b.npz.xz", {name: made[name] for name in names[14:26]})
    write_pack(folder / "val.npz.xz", {name: made[name] for name in names[26:]})
    rows = [f"{name}\tx\t1\t{names[n - n % 2]}" for n, name in enumerate(names)]  # two chains a cluster
    (folder / "splits.tsv").write_text("\n".join(["chain\tsplit\tlength\tcluster30", *rows]) + "\n")
    return folder


def test_packs_give_their_chains_and_keep_clusters_together(packs, made):
    splits = load_splits(DataConfig(source=Source.packs, path=str(packs), val_share=0.3))
    names = {split: {chain.name for chain in chains} for split, chains in splits.items()}
    assert names["test"] == {*[*made][26:]}
    assert names["train"] | names["val"] == {*[*made][:26]}
    cluster = {name: n // 2 for n, name in enumerate(made)}
    assert not {cluster[name] for name in names["train"]} & {cluster[name] for name in names["val"]}
    assert 2 <= len(names["val"]) <= 14
    for chains in splits.values():
        assert [len(chain) for chain in chains] == sorted(map(len, chains))  # batches of like lengths
        for chain in chains:
            letters, backbone, profile = made[chain.name]
            assert to_letters(chain.sequence) == letters
            assert chain.profile is not None
            assert chain.cb is not None
            assert chain.ss8 is not None
            assert "".join(SS8_STATES[k] for k in chain.ss8) == states(letters).decode().replace(" ", "-")
            assert np.allclose(chain.profile, profile / 255)
            cb = virtual_cb(backbone[:, :3] * 0.01, chain.sequence)
            assert np.allclose(chain.cb - chain.cb[0], cb - cb[0], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": np.array([23, 25])}, r"seq must be whole numbers of shape \(48,\), and has \(47,\)"),
        ({"length": np.array([47])}, "names and length must have an entry for each chain"),
        ({"length": np.array([50, -3])}, "names and length must have"),
        ({"length": np.array([23.0, 24.0])}, "names and length must have"),
        ({"seq": np.full(47, "A")}, r"seq must be .*has \(188,\)"),
        ({"profile": np.zeros((19, 47), np.uint8)}, r"profile must be whole numbers of shape \(20, 47\), and has \(19"),
        ({"rel": np.zeros((9, 47))}, "rel must be whole numbers"),
        ({"dca": np.zeros(47, np.int16)}, r"dca must be .* \(3, 47\)"),
    ],
)
def test_a_pack_of_other_shapes_is_refused(made, tmp_path, changes, message):
    chains = {name: made[name] for name in [*made][:2]}
    write_pack(tmp_path / "x.npz.xz", chains)
    assert [len(chain) for chain in read_pack(tmp_path / "x.npz.xz")] == [23, 24]
    write_pack(tmp_path / "x.npz.xz", chains, **changes)
    with pytest.raises(ValueError, match=f"x.npz.xz is no pack of chains, or cut short: {message}"):
        read_pack(tmp_path / "x.npz.xz")


def test_test_chains_with_kin_among_the_others_are_counted(packs, made, tmp_path):
    for path in packs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    names = [*made]
    rows = [f"{name}\t{names[n - n % 2] if name != '1027_A' else names[0]}" for n, name in enumerate(names)]
    (tmp_path / "splits.tsv").write_text("\ufeffchain\tcluster30\r\n" + "\r\n".join(rows))
    write_pack(tmp_path / "other.npz.xz", {"1000_A": made["1000_A"]})
    with pytest.warns(DataWarning) as told:
        load_splits(DataConfig(source=Source.packs, path=str(tmp_path), val_share=0.3))
    assert [str(w.message).replace(str(tmp_path), "IN").partition(", so that")[0] for w in told] == [
        "1 of 4 packs in IN was left out: 1 neither train* nor val (first: other.npz.xz)",
        "1 of 4 test chains in IN (first: 1027_A) are in a cluster of others to train or validate on",
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("chain\tcluster30\n1000_A\ta\n1001_A\n", "names no cluster of 1001_A; give a line to each of the 25 chains"),
        ("chain\tcluster\n1000_A\ta\n", "is no table with the columns chain and cluster30, .*'cluster30'"),
        ("", "names no cluster of 1000_A"),
    ],
)
def test_clusters_that_are_not_named_are_asked_for(packs, tmp_path, table, message):
    for path in packs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "splits.tsv").write_text(table)
    with pytest.raises(ValueError, match=f"splits.tsv {message}"):
        load_splits(DataConfig(source=Source.packs, path=str(tmp_path)))


@pytest.mark.parametrize("packed", [True, False])
def test_alignments_find_their_chains(packs, made, tmp_path, packed):
    """Chains to train on that have none are left out; the others are kept, without."""
    names = [*made]
    for name in (*names[:9], names[27], "other"):
        letters = made.get(name, ("ACD",))[0]
        (tmp_path / f"{name}.a3m").write_text(f">q\n{letters}\n>r\naa{letters[:-1]}-\n")
    source = tmp_path
    if packed:
        source = tmp_path / "all.tar.xz"
        with tarfile.open(source, "w:xz") as archive:
            for path in tmp_path.glob("*.a3m"):
                archive.add(path, f"some/{path.name}")
    config = DataConfig(source=Source.packs, path=str(packs), val_share=0.3, alignments=str(source))
    with pytest.warns(DataWarning) as told:
        splits = load_splits(config)
    said = [str(w.message).replace(str(source), "IN") for w in told]
    assert said[0].startswith("13 of 18 chains to train on in IN were left out: 13 without an alignment (first: 1")
    assert said[1:] == [
        "IN: alignments of no chain that is here, left out: 1 (other)",
        "IN: chains to validate or test on without an alignment, kept: 7 (1016_A, 1017_A, 1022_A, 1023_A, 1026_A, …)",
    ]
    have = {chain.name: chain.alignment for chains in splits.values() for chain in chains if chain.alignment}
    assert set(have) == {*names[:9], names[27]}
    assert {chain.name for chain in splits["train"]} < set(have)
    assert len(splits["test"]) == 4
    assert all(len(family) == 2 and family.insertions[1, 0] == 2 for family in have.values())


def test_training_on_packs_with_alignments_runs(packs, made, tmp_path):
    for name in made:
        (tmp_path / f"{name}.a3m").write_text(f">q\n{made[name][0]}\n>r\n{made[name][0][::-1]}\n")
    channels = [Channel.baseline, Channel.sites, Channel.covariance, Channel.inverse]
    data = Data(
        DataConfig(
            source=Source.packs,
            path=str(packs),
            alignments=str(tmp_path),
            channels=channels,
            crop_size=12,
            val_share=0.3,
        )
    )
    data.setup()
    torch.manual_seed(0)
    model = ModelConfig(dim=12, depth=1, num_heads=3, mlp_ratio=2, pair_dim=6)
    adapter = Adapter(model, PositionConfig(PositionKind.rotary), data.spec())
    batch = data.batch("train", [0, 1, 2], (np.random.default_rng(n) for n in range(3)))
    batch["distance"][:] = np.nan  # all that is left to learn is the secondary structure
    optimizer = torch.optim.Adam(adapter.parameters(), 0.01)
    losses = []
    for _ in range(20):
        loss = mean_loss(adapter.loss(adapter(batch), batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    found = evaluate(adapter.eval(), data, tmp_path / "found", "train").metrics
    assert 0.3 < found["Q8"] < found["Q3"] <= 1
    source = tmp_path / "in.fasta"
    source.write_text(f">a\n{made['1003_A'][0]}\n")
    predict(adapter, str(source), tmp_path / "out")
    with open(tmp_path / "out" / "a.residues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        eight = {state: float(row[state]) for state in SS8_STATES}
        assert sum(eight.values()) == pytest.approx(1, abs=1e-3)
        assert float(row["helix"]) == pytest.approx(eight["G"] + eight["H"] + eight["I"], abs=1e-3)


def database(chains: dict) -> bytes:
    """structure_db.dat with these chains, as ProMod3 writes it."""
    entries, at = b"", 0
    for name, (letters, *_) in chains.items():
        for part in name.split("_"):
            entries += struct.pack("<I", len(part)) + part.encode()
        entries += struct.pack("<IHH3f", at, len(letters), 1, 0, 0, 0)
        at += len(letters)
    arrays = [
        np.frombuffer("".join(letters for letters, *_ in chains.values()).encode(), np.uint8),
        np.concatenate([backbone.reshape(-1, 12) for _, backbone, _ in chains.values()]).astype("<u2"),
        np.zeros((at, 4), np.uint8),
        *(np.zeros(at, "<u2") for _ in range(2)),
        np.zeros(at, np.uint8),
        np.concatenate([profile * 40 for *_, profile in chains.values()]).astype("<i2"),
        np.full((at, 20), 77, "<i2"),  # made from the structure: must never be read
    ]
    head = bytes(77) + struct.pack("<Q", len(chains)) + entries
    return head + b"".join(struct.pack("<Q", at) + array.tobytes() for array in arrays)


def member(name: str, data: bytes) -> bytes:
    """A file of an ar archive."""
    return f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)


def package(files: dict[str, bytes], mode: str = "w:xz") -> bytes:
    """A .deb with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.xz", b"odd")
        + member("data.tar.xz", data.getvalue())
    )


def test_debians_package_gives_its_chains(made, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEND_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(domains.protein.clusters, "which", lambda program: None)
    deb = tmp_path / "promod3-data_1.deb"
    deb.write_bytes(package({"./usr/share/doc": b"x" * 999, "./usr/share/promod3/structure_db.dat": database(made)}))
    config = DataConfig(source=Source.promod3, path=str(deb), val_share=0.3, test_share=0.3)
    with pytest.warns(UserWarning, match=r"mmseqs is not installed.*apt-get install mmseqs2"):
        splits = load_splits(config)
    chains = {chain.name: chain for part in splits.values() for chain in part}
    assert set(chains) == set(made)
    for name, (letters, backbone, profile) in made.items():
        assert to_letters(chains[name].sequence) == letters
        found = chains[name]
        assert found.profile is not None
        assert found.cb is not None
        assert np.allclose(found.profile, profile * 40 / 10_000)
        assert np.allclose(found.cb, virtual_cb(backbone[:, :3] * 0.01, found.sequence), atol=1e-3)
    deb.unlink()
    kept = tmp_path / "data" / "promod3-data_1" / "structure_db.dat"
    assert len(read_promod3(kept)) == len(made)
    assert [*kept.parent.iterdir()] == [kept]


@pytest.mark.parametrize(
    "content",
    [b"", b"!<arch>\n", b"PK" * 99, package({"usr/other": b"x"}), package({"structure_db.dat": b"x" * 9999})[:-99]],
)
def test_what_is_not_that_package_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setenv("ATTEND_DATA", str(tmp_path / "data"))
    deb = tmp_path / "x.deb"
    deb.write_bytes(content)
    with pytest.raises(ValueError, match=r"structure_db.dat cannot be taken out of .*x.deb: .*dpkg-deb -x"):
        load_splits(DataConfig(source=Source.promod3, path=str(deb)))
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_package_that_cannot_be_opened_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEND_DATA", str(tmp_path / "data"))
    (tmp_path / "x.deb").mkdir()
    with pytest.raises(ValueError, match=r"cannot be taken out of .*x.deb: .*[Ii]s a directory"):
        load_splits(DataConfig(source=Source.promod3, path=str(tmp_path / "x.deb")))


def test_a_database_that_is_cut_short_is_refused(made, tmp_path):
    path = tmp_path / "structure_db.dat"
    for size in (50, 200, 9999):
        path.write_bytes(database(made)[:size])
        with pytest.raises(ValueError, match=r"is no structure_db.dat of promod3-data, or cut short"):
            read_promod3(path)


def write_pdb(path: Path, letters: str, chains: str = "A", seed: int = 0) -> None:
    code = {"A": "ALA", "S": "SER", "V": "VAL", "W": "TRP"}
    xyz = make_backbone(len(letters), np.random.default_rng(seed)) * 0.01
    lines = [
        f"ATOM  {1:5d}  {atom:3} {code[letter]} {chain}{n + 1:4d}    {''.join(f'{x:8.3f}' for x in xyz[n, k])}  1.00"
        for chain in chains
        for n, letter in enumerate(letters)
        for k, atom in enumerate(("N", "CA", "C", "CB"))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_a_folder_of_structures(tmp_path, monkeypatch):
    """Copies of a chain in one entry count once; what cannot be read, or is a peptide, is left out."""
    monkeypatch.setattr(domains.protein.clusters, "which", lambda program: None)
    rng = np.random.default_rng(0)
    for n in range(24):
        write_pdb(tmp_path / f"sub{n % 2}" / f"{n}.pdb", "".join(rng.choice([*"ASVW"], 29)), "AB", n)
    write_pdb(tmp_path / "short.pdb", "ASVW")
    (tmp_path / "broken.cif").write_text("data_x\n")
    (tmp_path / "notes.txt").write_text("no structure")
    config = DataConfig(source=Source.structures, path=str(tmp_path), val_share=0.3, test_share=0.3)
    with pytest.warns(UserWarning, match="left out|mmseqs") as told:
        splits = load_splits(config)
    assert [str(w.message).replace(str(tmp_path), "IT") for w in told][:2] == [
        "2 of 27 files in IT were left out: 1 that cannot be read (first: IT/broken.cif cannot be read as mmCIF: it "
        "has no atoms: the columns _atom_site.label_atom_id, label_alt_id, label_comp_id, label_asym_id, label_seq_id "
        "and Cartn_x, y, z must be there), 1 that are no structures (.txt) (first: notes.txt)",
        "25 of 49 chains in IT were left out: 1 with fewer than 20 residues seen (first: short_A), 24 that are copies "
        "of another in their file (first: 0_B)",
    ]
    names = {split: {chain.name for chain in chains} for split, chains in splits.items()}
    assert set().union(*names.values()) == {f"{n}_A" for n in range(24)}
    assert all(resolved_mask(chain).all() for chains in splits.values() for chain in chains)
    with pytest.warns(UserWarning, match="left out|mmseqs"):
        again = load_splits(config)
    assert {split: {chain.name for chain in chains} for split, chains in again.items()} == names


def kin(count: int) -> list[Chain]:
    """Chains in pairs that differ in every tenth residue, and in nothing with the others."""
    rng = np.random.default_rng(0)
    chains = []
    for n in range(count):
        letters = [*"".join(AMINO_ACIDS[k] for k in rng.integers(0, 20, 97))]
        chains.append(Chain(f"{n}a", encode_residues("".join(letters))))
        letters[5::10] = "W" * 10
        chains.append(Chain(f"{n}b", encode_residues("".join(letters))))
    return chains


FAKE = """#!{python}
import sys
_, command, fasta, out, folder, *limits = sys.argv
assert command == "easy-cluster" and limits[:4] == ["--min-seq-id", "0.3", "-c", "0.8"], sys.argv
lines = open(fasta).read().split()
assert lines[0] == ">0" and not lines[1].startswith(">")
with open(out + "_cluster.tsv", "w") as file:
    for n in range(len(lines) // 2):
        print(n - n % 2, n, sep="\\t", file=file)
"""


def test_kin_stay_together(tmp_path, monkeypatch):
    """By a program that finds them, in place of MMseqs2."""
    program = tmp_path / "mmseqs"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check_kin()
    program.write_text("#!/bin/sh\necho 'no space left' >&2; exit 1\n")
    with pytest.raises(ValueError, match=r"mmseqs easy-cluster failed: no space left$"):
        cluster_chains(kin(2))


@pytest.mark.skipif(which("mmseqs") is None, reason="needs MMseqs2")
def test_mmseqs_finds_kin():
    check_kin()


def check_kin() -> None:
    chains = kin(40)
    names = cluster_chains(chains)
    assert names[::2] == names[1::2]
    assert len(set(names)) == 40
    splits = split_by_cluster(chains, 0.25, 0.25)
    family = {split: {chain.name[:-1] for chain in part} for split, part in splits.items()}
    assert sum(map(len, family.values())) == 40  # none is in two of them
    assert all(4 <= len(part) <= 28 for part in family.values())


def test_draws_are_even():
    values = np.array([hash_fraction(str(n)) for n in range(2000)])
    assert np.allclose(np.histogram(values, 4, (0, 1))[0] / 2000, 0.25, atol=0.04)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": Source.packs, "path": None}, "data.path=None is not there; give the folder of the packs"),
        ({"source": Source.promod3, "path": "x.deb"}, r"data.path=x.deb is not there; .*apt-get download promod3-data"),
        ({"source": Source.structures, "path": "EMPTY"}, r"holds no structures \(.pdb, .ent, .cif, .mmcif, .bcif\)"),
        ({"source": Source.structures, "path": "BAD"}, "none of the 1 structures in .* can be read; the first: "),
        ({"source": Source.packs, "path": "EMPTY"}, "must hold train.*npz.xz, val.npz.xz and splits.tsv"),
        ({"source": Source.packs, "path": "CUT"}, "is no pack of chains, or cut short"),
        ({"source": Source.packs, "path": "PACKS", "val_share": 0.0}, "no chain is left for val; .*data.val_share"),
        (
            {"source": Source.packs, "path": "PACKS", "val_share": 0.99999, "test_share": 0},
            "no chain is left for train; .* smaller data.val_share and data.test_share",
        ),
        ({"source": Source.structures, "path": "SHORT"}, "SHORT has no chain with at least 20 residues seen"),
        ({"val_share": 0.6, "test_share": 0.4}, "must leave chains to train on"),
        ({"alignments": "nowhere"}, "data.alignments=nowhere is not there"),
        ({"alignments": "EMPTY"}, "has none for a chain to train on; they are called NAME.a3m"),
        ({"alignments": "CUT.tar.xz"}, "is no archive, or cut short"),
        ({"alignments": "OTHER"}, "is not one of that chain: lengths differ"),
        ({"alignments": "WRONG"}, r"1000_A.a3m cannot be read as A3M: '1' in sequence 'r'"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(packs, made, tmp_path, settings, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BAD").mkdir()
    (tmp_path / "BAD" / "x.pdb").write_text("HEADER\n")
    write_pdb(tmp_path / "SHORT" / "x.pdb", "ASVWASVWASVWASVWASV")
    (tmp_path / "CUT").mkdir()
    for path in packs.iterdir():
        (tmp_path / "CUT" / path.name).write_bytes(path.read_bytes()[: 300 if path.name.startswith("train") else None])
    (tmp_path / "CUT.tar.xz").write_bytes(b"\xfd7zXZ\x00 and no more")
    for folder, text in (("OTHER", ">q\nACD\n"), ("WRONG", ">q\nACD\n>r\nAC1\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1000_A.a3m").write_text(text)
    there = {"PACKS": packs}
    paths = {
        key: str(there.get(value, tmp_path / value)) if value.isupper() or value.startswith("CUT") else value
        for key, value in settings.items()
        if isinstance(value, str)
    }
    config = DataConfig(**({"source": Source.packs, "path": str(packs), "val_share": 0.3} | settings | paths))
    with pytest.raises(ValueError, match=message) as caught:
        load_splits(config)
    assert "\n" not in str(caught.value)
