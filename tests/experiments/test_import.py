"""Models of other libraries as run folders, through the function that the command calls."""

import json
from importlib import import_module
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import EsmConfig, EsmForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from domains.data_warnings import DataWarning
from domains.text.tokenizers import train_bpe
from experiments.compose import compose
from experiments.runs import load_run
from experiments.untrusted import load_domain

pytestmark = pytest.mark.filterwarnings("ignore:patches of")


def attend_import(*overrides):
    import_module("experiments.import").run(compose("import", list(overrides)))


@torch.no_grad()
def test_a_timm_model_from_a_file(tmp_path, capsys):
    torch.manual_seed(0)
    theirs: Any = timm.create_model("test_vit", num_classes=3, img_size=48).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    run = tmp_path / "run"
    settings = ("name=test_vit", f"file={tmp_path / 'vit.safetensors'}", "size=48", "classes=[cat,dog,a cow]")
    attend_import("source=timm", *settings, f"run={run}")
    assert f"wrote {run}" in capsys.readouterr().out.replace("\n", "")
    config, ours = load_run(run)
    assert config.domain.name == "vision"
    assert ours.get_submodule("classifier").out_features == 3
    assert json.loads((run / "spec.json").read_text())["classes"] == ["cat", "dog", "a cow"]
    pixels = torch.rand(2, 3, 48, 48)
    mean, std = (torch.tensor(theirs.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(ours({"images": pixels}), theirs((pixels - mean) / std), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="holds a run already"):
        attend_import("source=timm", *settings, f"run={run}")


@torch.no_grad()
def test_a_folder_of_transformers(tmp_path):
    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=97, n_positions=31, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    theirs = GPT2LMHeadModel(sizes).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    attend_import("source=transformers", f"file={tmp_path / 'gpt2'}", f"run={tmp_path / 'run'}")
    config, ours = load_run(tmp_path / "run")
    assert config.domain.name == "text"
    ids = torch.randint(97, (2, 13))
    torch.testing.assert_close(ours({"tokens": ids}), theirs(ids).logits, atol=1e-5, rtol=0)


@pytest.fixture
def shards(tmp_path) -> Any:
    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=97, n_positions=31, n_embd=24, n_layer=3, n_head=3, bos_token_id=0, eos_token_id=0)
    theirs = GPT2LMHeadModel(sizes).eval()
    theirs.save_pretrained(tmp_path / "gpt2", max_shard_size="30KB")
    return theirs, tmp_path / "gpt2"


@torch.no_grad()
def test_weights_in_shards(shards, tmp_path):
    theirs, folder = shards
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    attend_import("source=transformers", f"file={folder}", f"run={tmp_path / 'run'}")
    ids = torch.randint(97, (2, 13))
    torch.testing.assert_close(load_run(tmp_path / "run")[1]({"tokens": ids}), theirs(ids).logits, atol=1e-5, rtol=0)


def test_shards_that_are_not_what_their_index_says(shards, tmp_path):
    _, folder = shards
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    places, files = told["weight_map"], sorted(set(told["weight_map"].values()))
    name, first, second = next(n for n, f in places.items() if f == files[0]), files[0], files[1]

    def refused(message: str, change: Any) -> None:
        index.write_text(json.dumps(change) if not isinstance(change, str) else change)
        with pytest.raises(ValueError, match=message):
            attend_import("source=transformers", f"file={folder}", f"run={tmp_path / 'run'}")
        index.write_text(json.dumps(told))

    save_file({"x": torch.zeros(2)}, tmp_path / "outside.safetensors")
    for outside in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "", "..", "a/b.safetensors"):
        refused("which is no file of its folder", {"weight_map": places | {name: outside}})
    refused(
        f"1 of {len(files) + 1} shards in .* are missing .first: gone.safetensors",
        {"weight_map": {**places, "x": "gone.safetensors"}},
    )
    refused("lacks 1 weights .first: x", {"weight_map": {**places, "x": first}})
    refused("(lacks|has, unlike its index,) 1 weights", {"weight_map": {**places, name: second}})
    refused("has, unlike its index, 1 weights", {"weight_map": {n: f for n, f in places.items() if n != name}})
    for broken in ("{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}", "[" * 100_000):
        refused("(cannot be read|has no weight_map)", broken)
    (folder / second).write_bytes(b"\0" * 9)
    refused("cannot be read", told)
    (folder / second).unlink()
    refused(f"1 of {len(files)} shards in .* are missing .first: {second}", told)
    index.unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is pickled, which is not opened here"):
        attend_import("source=transformers", f"file={folder}", f"run={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_quantised_weights_are_refused_and_unknown_settings_kept_in_mind(shards, tmp_path):
    theirs, _ = shards
    theirs.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole" / "model.safetensors"
    state, whole = load_file(file), file.read_bytes()
    name = "transformer.h.0.attn.c_attn.weight"
    save_file(state | {name: state[name].to(torch.int8)}, file)
    with pytest.raises(ValueError, match=rf"1 weights of .* are quantised \(first: {name}, int8\)"):
        attend_import("source=transformers", f"file={tmp_path / 'whole'}", f"run={tmp_path / 'run'}")
    file.write_bytes(whole)
    config = tmp_path / "whole" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"mup_width": 2}))
    with pytest.warns(
        DataWarning, match="1 settings of config.json are not known here and change nothing: mup_width=2"
    ):
        attend_import("source=transformers", f"file={tmp_path / 'whole'}", f"run={tmp_path / 'run'}")
    said = json.loads((tmp_path / "run" / "summary.json").read_text())["data_warnings"]
    assert [line.split(": ")[-1] for line in said] == ["mup_width=2"]


@torch.no_grad()
def test_a_scaled_rotation_goes_through_a_run_and_out_again(tmp_path):
    torch.manual_seed(0)
    rope = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e3, "original_max_position_embeddings": 11}
    sizes: Any = {"vocab_size": 97, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 3, "max_position_embeddings": 44, "rope_parameters": rope}
    theirs = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None)).eval()
    theirs.save_pretrained(tmp_path / "llama")
    attend_import("source=transformers", f"file={tmp_path / 'llama'}", f"run={tmp_path / 'run'}")
    ids = torch.randint(97, (2, 41))
    ours = load_run(tmp_path / "run")[1]
    torch.testing.assert_close(ours({"tokens": ids}), theirs(ids).logits, atol=1e-5, rtol=0)
    import_module("experiments.export").run(
        compose("export", [f"run={tmp_path / 'run'}", f"output={tmp_path / 'out'}"])
    )
    again: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(again(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    written = json.loads((tmp_path / "out" / "config.json").read_text())["rope_parameters"]
    assert {name: written[name] for name in rope} == rope


def test_a_tokenizer_of_another_model(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=7, n_embd=6, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(train_bpe(["the cat and the hat"], 263).definition)
    with pytest.raises(
        ValueError, match="tokenizer has 263 tokens and the model's vocabulary 257: they are not of one"
    ):
        attend_import("source=transformers", f"file={tmp_path}", f"run={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
    (tmp_path / "tokenizer.json").write_text(train_bpe(["the cat and the hat"], 257).definition)
    attend_import("source=transformers", f"file={tmp_path}", f"run={tmp_path / 'run'}")
    text: Any = load_run(tmp_path / "run")[1].tokenizer
    assert text.decode(text.encode("the cat").tolist()) == "the cat"


@torch.no_grad()
def test_esm2_guesses_residues_as_theirs(tmp_path):
    torch.manual_seed(0)
    sizes = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=20, num_hidden_layers=2, num_attention_heads=5,
        intermediate_size=28, position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
    )  # fmt: skip
    theirs = EsmForMaskedLM(sizes).eval()
    theirs.save_pretrained(tmp_path / "esm2")
    attend_import("source=transformers", f"file={tmp_path / 'esm2'}", f"run={tmp_path / 'run'}")
    config, ours = load_run(tmp_path / "run")
    assert config.domain.name == "protein_language"
    tokens = torch.tensor([[0, 5, 32, 7, 11, 2], [0, 9, 5, 2, 1, 1]])
    expected = theirs(tokens, attention_mask=(tokens != 1).long()).logits
    torch.testing.assert_close(ours({"tokens": tokens})[tokens != 1], expected[tokens != 1], atol=1e-5, rtol=0)
    (tmp_path / "in.fasta").write_text(">a\nMKTAY\n")
    load_domain(config.domain.package).predict(ours, str(tmp_path / "in.fasta"), tmp_path / "out")
    assert (tmp_path / "out" / "a.csv").read_text().startswith("i,residue,probability,")


def test_what_cannot_be_imported_is_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    for message, overrides in {
        "source=hub is unknown; possible: timm, transformers, gguf": ["source=hub"],
        "is no model of timm; some that are: .*deit_tiny": ["source=timm", "name=deit_tiny"],
        "file=/nowhere does not exist": ["source=timm", "name=test_vit", "file=/nowhere"],
        "no weights": ["source=timm", "name=test_vit", f"file={tmp_path / 'model.safetensors'}"],
        "is no plain vision transformer": ["source=timm", "name=resnet18", "pretrained=false"],
        "must be a folder": ["source=transformers", "file=/nowhere"],
        "model_type=bert cannot be imported": ["source=transformers", f"file={tmp_path}"],
    }.items():
        with pytest.raises(ValueError, match=message):
            attend_import(*overrides, f"run={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_language_model_goes_out_as_it_came_in(tmp_path):
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=101, n_positions=32, n_embd=24, n_layer=2, n_head=3)).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    attend_import("source=transformers", f"file={tmp_path / 'gpt2'}", f"run={tmp_path / 'run'}")
    import_module("experiments.export").run(
        compose("export", [f"run={tmp_path / 'run'}", f"output={tmp_path / 'out'}"])
    )
    again: Any = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    ids = torch.randint(101, (3, 17))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
