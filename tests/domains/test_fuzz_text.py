"""Text, prompts, tokenizers and models of others, damaged or made up: a result, or one ValueError in a sentence."""

import json
import os
import tempfile
import warnings
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from domains.text.config import DataConfig as TextConfig
from domains.text.config import Source as TextSource
from domains.text.config import TokenizerKind
from domains.text.convert import from_transformers
from domains.text.corpus import open_corpus
from domains.text.gguf import read_gguf
from domains.text.predict import read_prompt
from domains.text.prompts import encode_prompts
from domains.text.tokenizers import read_tokenizer

pytest.importorskip("tokenizers", reason="pip install -e '.[bpe]'")
CALM = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
MORE = (
    "rope_scaling",
    "factor",
    "type",
    "sliding_window",
    "head_dim",
    "original_max_position_embeddings",
    "merges",
    "x",
)
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 2, "content": "</s>", "special": True, **dict.fromkeys(FLAGS, False)}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    },
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "</s>": 2, "Ġ": 3, "Ċ": 4, "A": 5, "B": 6}, "merges": []},
}
TOLD = {"bos_token": "</s>", "eos_token": {"content": "</s>"}, "chat_template": [{"name": "default", "template": "x"}]}


def text(path: Path) -> object:
    return open_corpus(TextConfig(source=TextSource.files, path=str(path), ngram_lookup=[]))


def prompt(path: Path) -> object:
    return read_prompt(str(path))


def linked_text(path: Path) -> object:
    """The file as a folder's, beside a link to it, an ordinary one, and a link to the folder itself."""
    folder = path.parent / "texts"
    folder.mkdir(exist_ok=True)
    (folder / "plain.txt").write_text("An ordinary text. " * 9)
    for name, target in {"linked.txt": path, "again": folder}.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)
    return text(folder)


LLAMA = {"model_type": "llama", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 3, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "max_position_embeddings": 11, "tie_word_embeddings": True}
LLAMA |= {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 5}}


def llama_weights() -> dict[str, torch.Tensor]:
    block, shapes = "model.layers.0", {"model.embed_tokens": (7, 4), "model.norm": (4,)}
    shapes |= {f"{block}.self_attn.{x}_proj": (4, 4) for x in "qkvo"}
    shapes |= {f"{block}.mlp.{x}_proj": (3, 4) for x in ("gate", "up")} | {f"{block}.mlp.down_proj": (4, 3)}
    shapes |= {f"{block}.{x}_layernorm": (4,) for x in ("input", "post_attention")}
    return {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}


SHARD = "model-00001-of-00001.safetensors"
WHERE = dict.fromkeys(llama_weights(), SHARD)


def imported(path: Path) -> object:
    """A folder of transformers in which one file is this one."""
    folder = path.parent / f"llama {path.name}"
    folder.mkdir(exist_ok=True)
    good = {
        "config.json": json.dumps(LLAMA).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": WHERE}).encode(),
        SHARD: save(llama_weights()),
    }
    for name, data in (good | {path.name: path.read_bytes()}).items():
        (folder / name).write_bytes(data)
    found: Any = SimpleNamespace(file=str(folder), known=None)
    return import_module("experiments.import").from_transformers(found)


def tokenizer(path: Path) -> object:
    """A tokenizer.json, or what lies beside a good one."""
    if path.name != "tokenizer.json":
        folder = path.parent / "beside"
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        (folder / path.name).write_bytes(path.read_bytes())
        path = folder
    return encode_prompts(read_tokenizer(path), ["ab", "</s>a"])


def gguf() -> bytes:
    """A Llama of llama.cpp, with every kind of key that is read."""
    package = import_module("gguf")
    with tempfile.TemporaryDirectory() as folder:
        writer = package.GGUFWriter(Path(folder) / "a.gguf", "llama")
        sizes = {"embedding_length": 4, "block_count": 1, "attention.head_count": 2, "feed_forward_length": 3}
        for name, value in (sizes | {"context_length": 11, "rope.dimension_count": 2}).items():
            writer.add_uint32(f"llama.{name}", value)
        scaling = {"factor": 2.0, "yarn_beta_fast": 8.0, "yarn_attn_factor": 1.0}
        for name, value in scaling.items():
            writer.add_float32(f"llama.rope.scaling.{name}", value)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_scaling_type(package.RopeScalingType.YARN)
        writer.add_rope_scaling_orig_ctx_len(5)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["a", "b", "ab", "</s>", "<x>", "c", "d"])
        writer.add_token_types([1, 1, 1, 3, 4, 1, 1])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(3)
        writer.add_add_bos_token(True)
        writer.add_chat_template("{{ messages }}")
        names = package.get_tensor_name_map(package.MODEL_ARCH.LLAMA, 1)
        for name, tensor in llama_weights().items():
            writer.add_tensor(names.get_name(name, (".weight",)), tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return (Path(folder) / "a.gguf").read_bytes()


def llama_cpp(path: Path) -> object:
    theirs, state, pieces = read_gguf(path)
    return from_transformers(theirs, state, pieces), encode_prompts(pieces, ["ab<x>", "</s>a"])


def told_apart(path: Path) -> object:
    """A text that a damaged tokenizer reads."""
    source = path.parent / "letters.txt"
    source.write_text("aBab bA\n" * 40)
    how = {"tokenizer": TokenizerKind.file, "tokenizer_path": str(path)}
    return open_corpus(TextConfig(source=TextSource.files, path=str(source), ngram_lookup=[], **how))


def two_files(path: Path) -> object:
    folder = path.parent / "two"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}))
    (folder / "merges.txt").write_bytes(path.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    return encode_prompts(read_tokenizer(folder), ["ab"])


READERS = {
    "text": ("a.txt", "Käse, 1 €\n".encode() * 30, text),
    "text in UTF-16": ("b.txt", ("Käse, 1 €\n" * 30).encode("utf-16"), text),
    "text in UTF-32": ("b.txt", ("Käse, 1 €\n" * 30).encode("utf-32"), text),
    "text in Latin-1": ("c.txt", ("Käse, Brot\r\n" * 30).encode("latin-1"), text),
    "text with lone CR": ("d.txt", b"One.\rTwo.\r\nThree.\n" * 20, text),
    "linked text": ("e.txt", "Käse, 1 €\n".encode() * 30, linked_text),
    "prompt": ("f.prompt", "Käse, 1 €\n".encode(), prompt),
    "config.json": ("config.json", json.dumps(LLAMA).encode(), imported),
    "shards": ("model.safetensors.index.json", json.dumps({"weight_map": WHERE}).encode(), imported),
    "shard": (SHARD, save(llama_weights()), imported),
    "tokenizer": ("tokenizer.json", json.dumps(TOKENIZER).encode(), tokenizer),
    "tokenizer_config": ("tokenizer_config.json", json.dumps(TOLD).encode(), tokenizer),
    "lossy text": (
        "tokenizer.json",
        json.dumps(TOKENIZER | {"normalizer": {"type": "Lowercase"}}).encode(),
        told_apart,
    ),
    "two files": ("merges.txt", b"#version: 0.2\na b\n", two_files),
}
if find_spec("gguf"):
    READERS["gguf"] = ("a.gguf", gguf(), llama_cpp)


ODD: list[Any] = [None, True, -1, 0, 1, 2.5, 10**12, 1e400, "", "x", "</s>", [], [1], {}, {"a": 1}, "../x", "nan"]


MARKS = [b"\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\x1f\x8b", b"%PDF-", b"-1", b"1e309"]


@st.composite
def values_changed(draw, good: bytes) -> bytes:
    """JSON in which some values are others, are gone, or have company."""
    said = json.loads(good)
    for _ in range(draw(st.integers(1, 3))):
        inside = said
        while True:
            keys = [*inside] if isinstance(inside, dict) else [*range(len(inside))]
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inside[key], dict | list) and inside[key] and draw(st.booleans()):
                inside = inside[key]
                continue
            match draw(st.sampled_from(["other", "gone", "more"])):
                case "other":
                    inside[key] = deepcopy(draw(st.sampled_from(ODD)))
                case "gone":
                    del inside[key]
                case _ if isinstance(inside, dict):
                    inside[draw(st.sampled_from(MORE))] = deepcopy(draw(st.sampled_from(ODD)))
            break
    return json.dumps(said).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_read_or_refused(kind, folder, bytes_changed, monkeypatch):
    """$ATTEND_FUZZ of each where that is set."""
    name, good, reader = READERS[kind]
    monkeypatch.setenv("ATTEND_DATA", str(folder / "home"))
    path, said = folder / name, []
    damages = bytes_changed(good, MARKS)
    if name.endswith(".json"):
        damages |= values_changed(good)
    many = int(os.environ.get("ATTEND_FUZZ", "30"))

    @settings(
        max_examples=many,
        derandomize="ATTEND_FUZZ" not in os.environ,
        deadline=None,
        database=None,
        suppress_health_check=CALM,
    )
    @given(damages)
    def read_it(data):
        path.write_bytes(data)
        try:
            reader(path)
        except ValueError as error:
            said.append(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(good)
        reader(path)
        read_it()
    path.unlink()
    assert said or "text" in kind or kind == "prompt"
    assert all(0 < len(text.splitlines()) <= 3 for text in said)
