"""ESM-2 of fair-esm and of transformers, every weight drawn anew, against a model of ours with those weights."""

import json
import weakref

import esm
import pytest
import torch
from esm.model.esm2 import ESM2
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import EsmConfig, EsmForMaskedLM
from transformers.models.esm.configuration_esm import get_default_vocab_list

from core.config import PositionConfig, PositionKind, TransformerConfig
from core.convert import export_state_dict, load
from core.probe import Probe
from domains.protein.convert import esm2, esm2_config, from_esm2
from domains.protein.language import ALPHABET, EOS, PAD, LanguageModel, encode

C, DEPTH, HEADS, MASK_TOKEN_PROBABILITY = 42, 5, 3, 97
CHAINS = ["MKTAYIAKQRQISFVK", "GS<mask>LV", "AC<mask>DEFGHIKLMNPQRST<mask>WYXBUZO.-", "W<mask>"]
ROTARY = PositionConfig(PositionKind.rotary)


CONFIG = {  # a config.json
    "model_type": "esm",
    "hidden_size": C,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": MASK_TOKEN_PROBABILITY,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "vocab_size": 33,
    "mask_token_id": 32,
    "pad_token_id": 1,
}


class Theirs:
    """A model of theirs behind the names that the tests use."""

    source: str
    config: TransformerConfig

    def __init__(self, model: nn.Module):
        self.model = model
        self.frequencies = [value for name, value in model.named_buffers() if name.endswith("inv_freq")]


class FromTransformers(Theirs):
    source = "transformers"

    def __init__(self):
        super().__init__(EsmForMaskedLM(EsmConfig.from_dict(CONFIG, attn_implementation="eager")))  # contacts need it
        self.config, _ = esm2_config(CONFIG)

    def logits(self, tokens):
        return self.model(tokens, attention_mask=(tokens != PAD).long()).logits

    def contacts(self, tokens):
        assert isinstance(self.model, EsmForMaskedLM)
        return self.model.predict_contacts(tokens, (tokens != PAD).long())


class FromFairEsm(Theirs):
    source = "fair-esm"

    def __init__(self):
        super().__init__(ESM2(num_layers=DEPTH, embed_dim=C, attention_heads=HEADS))
        self.config = TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS)

    def logits(self, tokens):
        return self.model(tokens)["logits"]

    def contacts(self, tokens):
        return self.model(tokens, return_contacts=True)["contacts"]


@pytest.fixture(params=[FromTransformers, FromFairEsm])
def theirs(request, randomise):
    theirs = request.param()
    randomise(theirs.model)
    for frequency in theirs.frequencies:  # as in the published weights
        frequency.copy_(frequency.half())
    return theirs


def ours_of(theirs) -> LanguageModel:
    model = LanguageModel(theirs.config, ROTARY)
    load(model, theirs.model.state_dict(), esm2(theirs.config, theirs.source))
    return model.eval()


def each_chain(tokens, *maps):
    """Of each chain its own part of (B, L - 2, L - 2) maps."""
    for row, *own in zip(tokens, *maps, strict=True):
        n = int((row == EOS).nonzero()) - 1
        yield [one[:n, :n] for one in own]


def test_alphabet_and_tokens_are_theirs():
    assert list(ALPHABET) == list(get_default_vocab_list()) == esm.Alphabet.from_architecture("ESM-1b").all_toks
    convert = esm.Alphabet.from_architecture("ESM-1b").get_batch_converter()
    torch.testing.assert_close(encode(CHAINS), convert([("", chain) for chain in CHAINS])[2])


@torch.no_grad()
def test_logits_are_theirs_and_go_back(theirs):
    tokens = encode(CHAINS)
    real = tokens != PAD
    want = theirs.logits(tokens)[real]
    assert want.std() > 0.1
    ours = ours_of(theirs)
    torch.testing.assert_close(ours({"tokens": tokens})[real], want, atol=1e-5, rtol=0)

    for value in [*theirs.model.parameters(), *theirs.frequencies]:
        value.zero_()
    theirs.model.load_state_dict(export_state_dict(ours, esm2(theirs.config, theirs.source)), strict=True)
    torch.testing.assert_close(theirs.logits(tokens)[real], want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_contacts_are_theirs_on_every_chain_and_nothing_beyond_it(theirs):
    tokens = encode(CHAINS)
    want, got = theirs.contacts(tokens), ours_of(theirs).contacts(tokens)
    assert got.shape == want.shape
    inside = torch.zeros_like(got, dtype=torch.bool)
    for a, b, own in each_chain(tokens, got, want, inside):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        own.fill_(True)
    assert want[inside].std() > 0.01
    assert got[~inside].abs().max() == 0


@torch.no_grad()
def test_a_long_chain_keeps_their_logits(theirs):
    """Rotation angles grow with the place, and rounded frequencies with them: exact ones are far off here."""
    letters = torch.randint(4, 24, (499,), generator=torch.Generator().manual_seed(2)).tolist()
    tokens = encode(["".join(ALPHABET[n] for n in letters)])
    want, ours = theirs.logits(tokens), ours_of(theirs)
    torch.testing.assert_close(ours({"tokens": tokens}), want, atol=1e-5, rtol=0)
    name = "transformer.position.frequency"
    ours.get_parameter(name).copy_(LanguageModel(theirs.config, ROTARY).get_parameter(name))
    assert (ours({"tokens": tokens}) - want).abs().max() > 1e-3


def older(state):
    """The names in files of transformers 4: frequencies once a block, a table that nothing reads."""
    state = dict(state)
    frequency = state.pop("esm.rotary_embeddings.inv_freq")
    for n in range(DEPTH):
        state[f"esm.encoder.layer.{n}.attention.self.rotary_embeddings.inv_freq"] = frequency.clone()
    state["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    state["esm.embeddings.position_embeddings.weight"] = torch.zeros(1026, C)
    del state["lm_head.decoder.weight"]
    return state


@torch.no_grad()
def test_files_of_transformers_new_and_old(randomise, tmp_path):
    theirs, tokens = FromTransformers(), encode(CHAINS)
    assert isinstance(theirs.model, EsmForMaskedLM)
    randomise(theirs.model)
    theirs.model.save_pretrained(tmp_path)
    want, config = theirs.logits(tokens), json.loads((tmp_path / "config.json").read_text())
    for state in (load_file(tmp_path / "model.safetensors"), older(theirs.model.state_dict())):
        ours = from_esm2(config, state).eval()
        torch.testing.assert_close(ours({"tokens": tokens})[tokens != PAD], want[tokens != PAD], atol=1e-5, rtol=0)


class Watch(TorchDispatchMode):
    """The most tensors of one size that were alive at once."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.most, self.seen = size, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() == self.size:
            self.seen.append(weakref.ref(out))
        alive = {t.untyped_storage().data_ptr() for one in self.seen if (t := one()) is not None}
        self.most = max(self.most, len(alive))
        return out


def test_contacts_hold_the_maps_of_one_block_at_a_time():
    tokens = encode(CHAINS)

    def most(depth: int, read) -> int:
        model = LanguageModel(TransformerConfig(dim=C, depth=depth, num_heads=HEADS), ROTARY).eval()
        with Watch(tokens.shape[0] * HEADS * tokens.shape[1] ** 2) as watch:
            read(model)
        return watch.most

    def kept(model):
        with torch.no_grad():
            model({"tokens": tokens}, probe=Probe())

    assert most(11, kept) >= 11  # so it does see the maps
    assert most(11, lambda model: model.contacts(tokens)) == most(2, lambda model: model.contacts(tokens)) < 11


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"position_embedding_type": "absolute"}, "position_embedding_type='absolute' cannot be imported"),
        ({"emb_layer_norm_before": True}, "which has emb_layer_norm_before=False"),
        ({"token_dropout": False}, "token_dropout=False cannot be imported"),
        ({"vocab_size": 31}, "which has vocab_size=33"),
    ],
)
def test_other_models_of_the_family_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        esm2_config(CONFIG | changes)


def test_what_a_table_refuses(theirs):
    model, table = LanguageModel(theirs.config, ROTARY), esm2(theirs.config, theirs.source)
    state = dict(theirs.model.state_dict())
    (decoder,) = (name for name in state if name in ("lm_head.weight", "lm_head.decoder.weight"))
    with pytest.raises(ValueError, match="embedding and decoder"):
        load(model, state | {decoder: state[decoder] + 1}, table)
    with pytest.raises(ValueError, match=r"no row of the table takes these weights: emb_layer_norm_before\.weight"):
        load(model, state | {"emb_layer_norm_before.weight": torch.ones(C)}, table)
    with pytest.raises(ValueError, match="possible: fair-esm, transformers"):
        esm2(theirs.config, "huggingface")
    with pytest.raises(ValueError, match="hidden_size, num_hidden_layers"):
        esm2_config({"model_type": "esm"})
