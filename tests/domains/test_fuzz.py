"""Files that are damaged, made up, or packed to burst: every reader gives a result, or one ValueError in a sentence."""

import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgpack import packb
from PIL import Image
from safetensors.torch import save

from domains import archives
from domains.data_warnings import DataWarning
from domains.protein.files import read_chains
from domains.protein.sources import read_alignments, read_pack
from domains.rl.baselines3 import read_baselines3
from domains.rl.env_specs import registered_spec, spec_to_dict
from domains.rl.policies import read_network
from domains.rl.trajectories import read
from domains.text.config import DataConfig as TextConfig
from domains.text.config import Source as TextSource
from domains.text.corpus import open_corpus
from domains.text.tokenizers import read_tokenizer
from domains.vision.config import DataConfig as ImageConfig
from domains.vision.config import OnError
from domains.vision.config import Source as ImageSource
from domains.vision.data import Data as ImageData
from domains.vision.decode import image_files, read_image
from experiments.runs import read_weights
from experiments.training.checkpoints import is_intact
from experiments.untrusted import read_config, read_spec

ATOM = "ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00\n"
PDB = [ATOM.replace("   1    ", f"{number:>4}    ") for number in (*range(1, 8), "A000")]
PDB += ["TER\n", *PDB[:3], ATOM.replace("ATOM  ", "HETATM").replace("ALA", "MSE"), "ENDMDL\n", *PDB, "END\n"]
A3M = b"#2,3\t1,2\n>ss_pred\n99999\n>c_consensus\nMKTAL\n>1\t2\nMKTAL*\n>h\nMk-K*-L\n>g\n--TAL\n\0>q\nMK\n"
ODD = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"*",
    b":",
    b"/",
    b"#3,2\t1,1\n",
    b">ss_pred\n",
    b"TER\n",
    b"END\n",
    b"MODEL ",
]
ODD += [b"HISD", b"HSE", b" A000", b"-999", b"data_\n", b"SEQRES   1 A    2  ALA ALA\n", b"PROA", b"9999", b";\n", b"?"]
CIF = (
    "data_x\nloop_\n_atom_site.label_atom_id\n_atom_site.label_alt_id\n_atom_site.label_comp_id\n"
    "_atom_site.label_asym_id\n_atom_site.label_seq_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n"
    "CA . ALA A 1 0.0 0.0 0.0\nCA . GLY A 2 3.8 0.0 0.0\n"
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 2, "content": "</s>", "special": True, **dict.fromkeys(FLAGS, False)}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "</s>": 2}, "merges": []},
}


def packed(what, save) -> bytes:
    file = io.BytesIO()
    save(file, what)
    return file.getvalue()


def trajectories(**changes) -> bytes:
    arrays = {
        "observations": np.zeros((5, 3), np.float32),
        "actions": np.zeros(5, np.int64),
        "rewards": np.zeros(5, np.float32),
        "terminated": np.array([0, 0, 0, 0, 1], bool),
        "truncated": np.zeros(5, bool),
        "episode_length": np.array([5]),
        "env_id": np.array("CartPole-v1"),
        "env_spec": np.array(json.dumps(spec_to_dict(registered_spec("CartPole-v1")))),
    }
    return packed(arrays | changes, lambda file, what: np.savez_compressed(file, **what))


def actor() -> bytes:
    """A model of Stable-Baselines3, as far as it is read."""
    weights = {"action_net.weight": torch.zeros(2, 3), "action_net.bias": torch.zeros(2)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("policy.pth", packed(weights, lambda f, what: torch.save(what, f)))
        archive.writestr("data", '{"policy_kwargs": {}, "use_sde": false}')
    return file.getvalue()


def pack_of_chains() -> bytes:
    """Two chains, of 3 and 5 residues."""
    arrays = {"names": np.array(["1ABC_A", "2ABC_B"]), "length": np.array([3, 5]), "seq": np.full(8, b"A")}
    arrays |= {"ss8": np.full(8, b"H"), "profile": np.full((20, 8), 12, np.uint8)}
    arrays |= {"dca": np.full((3, 8), 220, np.int16), "rel": np.full((9, 8), 70, np.int16)}
    return packed(arrays, lambda file, what: np.savez(file, **what))


def bcif(atoms: int = 2) -> bytes:
    """BinaryCIF of two atoms, with most of its encodings; one column claims to have as many as that."""
    byte, whole = ({"kind": "ByteArray", "type": kind} for kind in (1, 3))
    delta, tenths = {"kind": "Delta", "origin": 0, "srcType": 3}, {"kind": "FixedPoint", "factor": 10, "srcType": 32}
    short = {"kind": "IntegerPacking", "byteCount": 1, "isUnsigned": 0, "srcSize": 2}

    def strings(distinct: list[str], which: list[int], *how: dict) -> dict:
        offsets = np.cumsum([0, *map(len, distinct)], dtype="<i4").tobytes()
        kind = {"kind": "StringArray", "dataEncoding": [*how, whole], "stringData": "".join(distinct)}
        kind |= {"offsetEncoding": [whole], "offsets": offsets}
        return {"data": np.array(which, "<i4").tobytes(), "encoding": [kind]}

    columns = {
        "label_atom_id": strings(["CA"], [0, atoms], {"kind": "RunLength", "srcSize": 2}),
        "label_alt_id": strings([], [-1, -1]),
        "label_comp_id": strings(["ALA", "GLY"], [0, 1]),
        "label_asym_id": strings(["A"], [0, 0], delta),
        "label_seq_id": {"data": np.array([1, 1], "<i1").tobytes(), "encoding": [delta, byte]},
        **{
            f"Cartn_{x}": {"data": np.array([0, 38], "<i1").tobytes(), "encoding": [tenths, short, byte]} for x in "xyz"
        },
    }
    table = {"name": "_atom_site", "columns": [{"name": name, "data": data} for name, data in columns.items()]}
    return packb({"dataBlocks": [{"categories": [table]}]})  # pyright: ignore[reportReturnType]


def png(side: tuple[int, int] = (7, 5)) -> bytes:
    return packed(Image.new("RGB", side, 200), lambda file, image: image.save(file, "PNG"))


def text(path: Path) -> object:
    return open_corpus(TextConfig(source=TextSource.files, path=str(path), ngram_lookup=[]))


def checkpoint(path: Path) -> None:
    if not is_intact(path):
        raise ValueError("damaged")


# For each kind of file: a name, a good one, and what reads it.
EXAMPLES = int(os.environ.get("ATTEND_FUZZ", 40))  # inputs that a test draws
CALM = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
READERS = {
    "fasta": ("a.fasta", b">one\nMKTAYIAKQR\n>two\nACD*\n", read_chains),
    "fasta.gz": ("a.fasta.gz", gzip.compress(b">one\nMKTAYIAKQR\n"), read_chains),
    "a3m.xz": ("a.a3m.xz", lzma.compress(b">q\nMKTA\n>r\nMk-TA\n"), read_chains),
    "a3m": ("a.a3m", b"#1\n>q\nMKTA\n>r\nM-TkA\n", read_chains),
    "stockholm": ("a.sto", b"# STOCKHOLM 1.0\nq MKTA\nr M-TA\n//\n", read_chains),
    "a3m of a complex": ("a.a3m", A3M, read_chains),
    "fasta of complexes": (
        "a.fasta",
        b";x\n>P1;a\nA B\nMKTA:GS/MKTA*\n>\n 1 mkTAUX 6\n\0>b\nACGTACGTACGTACGTACGT\n",
        read_chains,
    ),
    "pdb": ("a.pdb", (ATOM + ATOM.replace("   1    ", "   2    ") + "END\n").encode(), read_chains),
    "pdb of others": ("a.pdb", "".join(PDB).encode(), read_chains),
    "cif": ("a.cif", CIF.encode(), read_chains),
    "cif of others": (
        "a.cif",
        (CIF.replace("1 0.0", "501 0.0").replace("2 3.8", "-2 3.8") + "#\n" + CIF).encode("utf-16"),
        read_chains,
    ),
    "bcif": ("a.bcif", bcif(), read_chains),
    "npz": ("a.npz", trajectories(), read),
    "baselines3": ("a.zip", actor(), lambda path: read_baselines3(path, discrete=True)),
    "network": ("a.npz", trajectories(), read_network),
    "tar": (
        "a.tar",
        packed(b"", lambda file, _: tarfile.open(fileobj=file, mode="w").close()),
        lambda p: [*read_alignments(p)],
    ),
    "pack": ("a.npz.xz", lzma.compress(pack_of_chains(), check=lzma.CHECK_NONE), read_pack),
    "image": ("a.png", png(), lambda path: read_image(path, (3, 4, 4))),
    "jpeg": (
        "a.jpg",
        packed(Image.new("RGB", (9, 7)), lambda f, i: i.save(f, "JPEG")),
        lambda p: read_image(p, (1, 4, 4)),
    ),
    "gif": ("a.gif", packed(Image.new("P", (9, 7)), lambda f, i: i.save(f, "GIF")), lambda p: read_image(p, (1, 4, 4))),
    "tiff": (
        "a.tif",
        packed(Image.new("I;16", (9, 7)), lambda f, i: i.save(f, "TIFF")),
        lambda p: read_image(p, (1, 4, 4)),
    ),
    "text": ("a.txt", "Käse, 1 €\n".encode() * 30, text),
    "config": (
        "config.yaml",
        b"domain: {name: a, package: domains.text}\ndata: {}\nmodel: {}\nposition: {}\nseed: 0\n",
        lambda p: read_config(p.parent),
    ),
    "spec": ("spec.json", b'{"classes": ["a"], "size": [8, 8]}', lambda p: read_spec(p.parent)),
    "weights": ("weights.safetensors", save({"a": torch.zeros(3)}), lambda p: read_weights(p.parent)),
    "checkpoint": (
        "last.ckpt",
        packed({"global_step": 1, "x": torch.zeros(3)}, lambda f, x: torch.save(x, f)),
        checkpoint,
    ),
}
# Further formats of images: a mode for each, with transparency where it has any, and with more than 8 bits.
for suffix, mode in {
    "webp": "RGBA", "tif": "F", "tiff": "I", "pfm": "F", "pgm": "I", "ppm": "RGB", "tga": "RGBA", "ico": "RGBA",
    "bmp": "P", "pcx": "L", "sgi": "RGBA", "qoi": "RGBA", "dds": "RGBA", "im": "F", "jp2": "LA", "avif": "RGBA",
    "apng": "LA", "icns": "RGBA", "msp": "1", "xbm": "1",
}.items():  # fmt: skip
    made = packed(
        Image.linear_gradient("L").resize((37, 29)).convert(mode),
        lambda file, image, suffix=suffix: image.save(file, Image.registered_extensions()[f".{suffix}"]),
    )
    READERS[f"image.{suffix}"] = (f"a.{suffix}", made, lambda path: read_image(path, (3, 5, 7)))
if find_spec("tokenizers"):
    READERS["tokenizer"] = ("tokenizer.json", json.dumps(TOKENIZER).encode(), lambda p: read_tokenizer(p).encode("ab"))


MARKS = [b"\n", b"-1", b"1e309", b"nan", b"\0", b">", *ODD]
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F")
TOPS = ("Training", "TEST", "val", "valid", "dev", "test_set", "more", "")
CLASSES = ("cat", "dog", "dog ", "Caf\u00e9", "Cafe\u0301", "test", "$x$", "")
SIDES = st.tuples(*[st.sampled_from([1, 2, 7, 31, 3_001])] * 2).filter(lambda side: min(side) < 32)
ENDS = st.sampled_from([(0, 0), (0, 1), (0, 255), (3, 4_095), (-1_024, 3_071), (0, 65_535), (0.0, 1e-7), (0, np.nan)])


@st.composite
def pictures(draw) -> tuple[Image.Image, str]:
    """An image of any mode, shape and range, and a suffix that it can be saved under."""
    mode, (width, height), (low, high) = draw(st.sampled_from(MODES)), draw(SIDES), draw(ENDS)
    values = np.random.default_rng(draw(st.integers(0, 3))).random((height, width, 4))
    with np.errstate(invalid="ignore"):
        deep = low + values[..., 0] * (high - low)
    match mode:
        case "F":
            return Image.fromarray(deep.astype(np.float32)), draw(st.sampled_from(["tif", "pfm"]))
        case "I" | "I;16":
            whole = np.nan_to_num(deep).clip(0 if mode == "I;16" else -9_999)
            return Image.fromarray(whole.astype(np.int32 if mode == "I" else np.uint16)), "tif"
        case "CMYK":
            return Image.fromarray((255 * values).astype(np.uint8), mode), draw(st.sampled_from(["tif", "jpg"]))
    image = Image.fromarray((255 * values).astype(np.uint8), "RGBA")
    image.paste(draw(st.sampled_from(["white", "black", "yellow"])), (0, 0, width, max(1, height // 2)))
    if draw(st.booleans()):
        image.putalpha(draw(st.sampled_from([0, 9, 255])))
    suffixes = ["png", "webp", "gif", "avif", "PNG", "tga"] if mode in ("RGBA", "LA", "P") else ["png", "bmp", "jfif"]
    suffix = draw(st.sampled_from(suffixes if max(width, height) < 3_000 else ["png"]))
    return image.convert("RGBA" if suffix in ("tga", "webp", "avif", "gif") else mode), suffix


@st.composite
def image_folders(draw) -> list[tuple[str, Image.Image | bytes | str]]:
    """Paths below a folder, and what lies there: an image, other bytes, or a link to another path."""
    tops = draw(
        st.just([""]) | st.lists(st.sampled_from(TOPS), max_size=2, unique=True).map(lambda more: ["train", *more])
    )
    classes = draw(st.just(["cat", "dog"]) | st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4, unique=True))
    found = []
    for number in range(draw(st.integers(1, 40))):
        place = "/".join(name for name in (tops[number % len(tops)], draw(st.sampled_from(classes))) if name) or "."
        if draw(st.integers(0, 30)):
            image, suffix = draw(pictures())
            suffix = draw(st.sampled_from([suffix] * 20 + ["png", "jpg", "heic", "txt"]))
            found.append((f"{place}/{number}.{suffix}", image))
        elif draw(st.booleans()):
            found.append((f"{place}/{number}.png", draw(st.binary(max_size=9))))
        else:
            found.append((f"{place}/link{number}", draw(st.sampled_from(["..", "../..", ".", "../cat", "nowhere"]))))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_read_or_refused(kind, folder, bytes_changed, monkeypatch):
    name, good, reader = READERS[kind]
    monkeypatch.setenv("ATTEND_DATA", str(folder / "home"))
    path, said = folder / name, []

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=CALM)
    @given(bytes_changed(good, MARKS))
    def read_it(data):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader(path)
            except ValueError as error:
                said.append(str(error))

    path.write_bytes(good)
    if kind not in ("network", "pdb"):  # these make no sense whole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            reader(path)
    read_it()
    assert said
    assert all(0 < len(text.splitlines()) <= 3 for text in said)


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=CALM)
@given(image_folders(), st.sampled_from([None, 5]), st.sampled_from(OnError))
def test_folders_of_images_are_read_or_refused(tmp_path_factory, files, size, on_error):
    """Whatever they hold: batches in [0, 1], which a prediction reads alike, or a sentence."""
    root = tmp_path_factory.mktemp("images") / "links" / "end here"
    for name, what in files:
        path = root / name
        assert path.is_relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, str):
            path.symlink_to(what)
        elif isinstance(what, bytes):
            path.write_bytes(what)
        else:
            kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
            try:
                what.save(path, kind)
            except OSError:  # a mode that the format of another suffix does not hold
                what.convert("L").save(path, "PNG")
    data = ImageData(ImageConfig(source=ImageSource.folder, path=str(root), size=size, on_error=on_error))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refused = ""
        try:
            data.setup()
        except ValueError as error:
            refused = str(error)
    if not hasattr(data, "images"):
        assert 0 < len(refused.splitlines()) <= 3
        return
    assert len({str(line.message) for line in said}) == len(said) < 20
    batch = data.batch("test", range(data.size("test")))["images"]
    assert batch.isfinite().all()
    assert 0 <= batch.min() <= batch.max() <= 1
    spec = data.spec()
    assert len(spec["classes"]) == len(set(spec["classes"])) > 1


def test_what_unpacks_to_more_than_the_memory_is_refused(folder, monkeypatch):
    """Bombs of each kind, of which no more is unpacked than there is room for."""
    monkeypatch.setattr(archives, "ROOM", 3_000_000)
    zeros = b">one\n" + b"A" * 60_000_000
    many = np.zeros(60_000_000, np.uint8)
    network = packed(None, lambda file, _: np.savez_compressed(file, act=many))
    member = tarfile.TarInfo("a.a3m")
    member.size = len(zeros)
    bombs = {
        "a.fasta.gz": (gzip.compress(zeros), read_chains),
        "a.fasta.xz": (lzma.compress(zeros), read_chains),
        "a.npz": (trajectories(observations=np.zeros((5, 3_000_000), np.float32)), read),
        "network.npz": (network, read_network),
        "a.npz.xz": (lzma.compress(b"\0" * 60_000_000), read_pack),
        "a.bcif": (bcif(60_000_000), read_chains),
        "a.tar.xz": (
            packed(zeros, lambda f, what: archived(f, member, what)),
            lambda path: [*read_alignments(path)],
        ),
    }
    for name, (data, reader) in bombs.items():
        assert len(data) < 300_000
        (folder / name).write_bytes(data)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"takes more than 0\.0 GB of memory"):
            reader(folder / name)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 25_000_000, name


def archived(file, member, what) -> None:
    with tarfile.open(fileobj=file, mode="w:xz") as archive:
        archive.addfile(member, io.BytesIO(what))


def test_sizes_that_a_file_only_claims_take_no_memory(folder):
    """A header of .npy with 10^15 numbers; a PNG and a GIF of 100,000 pixels a side."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    npy = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + b"\0" * 80
    with zipfile.ZipFile(folder / "claims.npz", "w") as file:
        file.writestr("act.npy", npy)
    with pytest.raises(ValueError, match=r"no \.npz file, or cut short"):
        read_network(folder / "claims.npz")
    small = png((9, 9))
    size = struct.pack(">II", 100_000, 100_000)
    ihdr = b"IHDR" + size + small[24:29]
    (folder / "large.png").write_bytes(small[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + small[33:])
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(folder / "large.png", (3, 8, 8))
    assert image_files(folder / "large.png") == [folder / "large.png"]


def test_one_very_long_episode_among_many_takes_no_memory(folder, monkeypatch):
    """Episodes are padded to the longest of them: 10 thousand of one step and one of 10 thousand."""
    monkeypatch.setattr(archives, "ROOM", 10_000_000)
    lengths = np.array([1] * 10_000 + [10_000])
    ends = np.zeros(20_000, bool)
    ends[np.cumsum(lengths) - 1] = True
    long = {"observations": np.zeros((20_000, 3), np.float32), "actions": np.zeros(20_000, np.int64)}
    rest = {"rewards": np.zeros(20_000, np.float32), "terminated": ends, "truncated": ~ends & False}
    (folder / "long.npz").write_bytes(trajectories(**long, **rest, episode_length=lengths))
    with pytest.raises(ValueError, match="with every episode as long as its longest one, takes more than"):
        read(folder / "long.npz")


def test_a_sequence_of_ten_million_residues_is_read(folder):
    (folder / "long.fasta").write_text(">long\n" + "ACDEFGHIKL" * 1_000_000 + "\n")
    (chain,) = read_chains(folder / "long.fasta")
    assert len(chain) == 10_000_000
