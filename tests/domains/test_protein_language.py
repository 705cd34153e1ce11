"""The protein language model: tokens, what training hides, padding, contacts."""

from dataclasses import replace

import pytest
import torch

from core.config import Mixer, PositionConfig, PositionKind, TransformerConfig
from core.masks import Padding
from core.probe import Probe
from domains.adapter import mean_loss, mean_metrics
from domains.protein.language import (
    ALPHABET,
    CLS,
    EOS,
    ESM_RESIDUES,
    FIRST_AMINO_ACID,
    IGNORE_INDEX,
    LAST_AMINO_ACID,
    MASK,
    PAD,
    LanguageModel,
    encode,
    mask_tokens,
)
from experiments.config import OptimizerConfig
from experiments.training.optimizers import make_optimizer

C, DEPTH, HEADS = 42, 3, 3
CONFIG = TransformerConfig(dim=C, depth=DEPTH, num_heads=HEADS)
CHAINS = [  # of ubiquitin, insulin, crambin and others
    "MQIFVKTLTGKTITLEVEPSDTIENVK",
    "GIVEQCCTSICSLYQLENYCN",
    "FVNQHLCGSHLVEALYLVCGERGFFYTPKT",
    "TTCCPSIVARSNFNVCRLPGTPEAICATYTG",
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEAL",
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVC",
    "MTYKLILNGKTLKGETTTEAVDAATAEKVF",
    "RPDFCLEPPYTGPCKARIIRYFYNAKAGLC",
]


def make_model(seed: int = 0, position: PositionKind = PositionKind.rotary, **changes) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(replace(CONFIG, **changes), PositionConfig(position))


def test_tokens_by_hand():
    tokens = encode(["LAG", "<mask>-", "X"])
    assert tokens.tolist() == [[0, 4, 5, 6, 2], [0, 32, 30, 2, 1], [0, 24, 2, 1, 1]]
    assert (CLS, PAD, EOS, MASK, len(ALPHABET)) == (0, 1, 2, 32, 33)


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        (["MK", "MJ*"], "sequence 1 has '\\*', 'J'; possible: LAGV.* write X"),
        (["mk"], "sequence 0 has 'k', 'm'; possible: .*upper case"),
        (["MK\n"], r"sequence 0 has '\\n'"),
        (["MK<pad>"], "sequence 0 has '<', '>', 'a', 'd', 'p'"),
        (["MK", ""], "at least one residue"),
        ([], "at least one sequence"),
    ],
)
def test_what_is_no_sequence(sequences, says):
    with pytest.raises(ValueError, match=says):
        encode(sequences)


def test_what_training_hides():
    tokens = encode(["".join(ESM_RESIDUES[n % 20] for n in range(9001)) + "<mask>", ESM_RESIDUES])
    batch = mask_tokens(tokens, torch.Generator().manual_seed(0))
    selected = batch["targets"] != IGNORE_INDEX
    assert torch.equal(batch["tokens"][~selected], tokens[~selected])
    assert torch.equal(batch["targets"][selected], tokens[selected])
    assert not selected[(tokens == CLS) | (tokens == EOS) | (tokens == PAD) | (tokens == MASK)].any()
    now, was = batch["tokens"][selected], tokens[selected]
    assert len(was) / 9000 == pytest.approx(0.15, abs=0.015)
    assert (now == MASK).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (now == was).float().mean().item() == pytest.approx(0.1 + 0.1 / 20, abs=0.03)
    other = now[(now != MASK) & (now != was)]
    assert set(other.tolist()) <= set(range(FIRST_AMINO_ACID, LAST_AMINO_ACID + 1))
    assert len(other.unique()) == 20


def test_masked_embeddings_are_dropped_and_the_rest_made_up_for():
    model = make_model()
    tokens = encode(["LA<mask>GVS", "LA"])  # 8 tokens, one hidden; 4 tokens, none hidden
    x, mask, *_ = model.tokens({"tokens": tokens})
    assert x[0, 3].abs().max() == 0
    assert x[1, 4:].abs().max() == 0
    torch.testing.assert_close(x[0, 1], model.embed.weight[tokens[0, 1]] * 0.88 / (7 / 8))
    torch.testing.assert_close(x[1, 1], model.embed.weight[tokens[1, 1]] * 0.88)
    assert isinstance(mask, Padding)
    assert torch.equal(mask.valid, tokens != PAD)


@torch.no_grad()
@pytest.mark.parametrize("position", [PositionKind.rotary, PositionKind.learned])
def test_padding_changes_nothing(position):
    model = make_model(position=position).eval()
    together, contacts = model({"tokens": encode(CHAINS)}), model.contacts(encode(CHAINS))
    for n, chain in enumerate(CHAINS):
        alone, L = encode([chain]), len(chain)
        torch.testing.assert_close(together[n, : L + 2], model({"tokens": alone})[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(contacts[n, :L, :L], model.contacts(alone)[0], atol=1e-6, rtol=0)
        assert contacts[n, L:].abs().sum() == 0


def test_order_matters():
    model = make_model().eval()
    logits = model({"tokens": encode([CHAINS[0], CHAINS[0][::-1]])})
    assert (logits[0, 1:-1] - logits[1, 1:-1].flip(0)).abs().max() > 0.01


def test_training_learns_more_than_how_often_residues_occur():
    model, draw, tokens = make_model(zero_init=True), torch.Generator().manual_seed(1), encode(CHAINS)
    optimizer = make_optimizer(model, OptimizerConfig(lr=3e-3))
    selected = [mask_tokens(tokens, torch.Generator().manual_seed(seed)) for seed in (101, 102, 103)]
    before, frequency = mean_metrics(model, selected), model.get_parameter("transformer.position.frequency").clone()
    mean_loss(model.loss(model(selected[0]), selected[0])).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())  # as data parallelism needs it
    for _ in range(120):
        batch = mask_tokens(tokens, draw)
        optimizer.zero_grad()
        mean_loss(model.loss(model(batch), batch)).backward()
        optimizer.step()
    after = mean_metrics(model, selected)
    share = torch.bincount(tokens[(tokens >= FIRST_AMINO_ACID) & (tokens <= LAST_AMINO_ACID)]).double()
    share = share[share > 0] / share.sum()
    assert after["loss"] < -(share * share.log()).sum() - 0.2 < before["loss"] - 0.2
    assert after["recovery"] > share.max() > before["recovery"]
    assert torch.equal(model.get_parameter("transformer.position.frequency"), frequency)


def test_a_batch_that_asks_for_nothing_has_no_loss():
    tokens = encode(["LA"])
    model, batch = make_model(), {"tokens": tokens, "targets": torch.full_like(tokens, IGNORE_INDEX)}
    assert mean_loss(model.loss(model(batch), batch)).item() == 0


@torch.no_grad()
def test_contacts_by_definition():
    model = make_model().eval()
    tokens = encode([CHAINS[1]])
    probe = Probe()
    model({"tokens": tokens}, probe=probe)
    A = torch.stack(probe.attention, 1)[0, ..., 1:-1, 1:-1].double()  # (depth, H, L - 2, L - 2)
    a = A + A.mT
    apc = torch.einsum("nhi,nhj->nhij", a.sum(-1), a.sum(-2)) / a.sum((-1, -2))[..., None, None]
    weight = model.contact.weight.view(DEPTH, HEADS).double()
    want = (((a - apc) * weight[..., None, None]).sum((0, 1)) + model.contact.bias.double()).sigmoid()
    torch.testing.assert_close(model.contacts(tokens)[0].double(), want, atol=1e-6, rtol=0)


@torch.no_grad()
def test_heads_that_see_no_residue_say_nothing():
    """All look at <cls>, so hard that what is left for residues is 0 in single precision."""
    model, tokens = make_model().eval(), encode([CHAINS[1]])
    model.embed.weight[:, 0] = 0
    model.embed.weight[CLS] = 100 * torch.eye(C)[0]
    slow = torch.arange(HEADS) * (C // HEADS) + C // HEADS // 2 - 1  # the feature of each head that turns least
    for n in range(DEPTH):
        weight, bias = (model.get_parameter(f"transformer.blocks.{n}.mixer.qkv.{kind}") for kind in ("weight", "bias"))
        weight[: 2 * C], bias[: 2 * C] = 0, 0
        bias[slow], weight[C + slow, 0] = 1000, 1000
    probe = Probe()
    model({"tokens": tokens}, probe=probe)
    assert torch.stack(probe.attention)[..., 1:-1].abs().max() == 0
    contacts = model.contacts(tokens)
    torch.testing.assert_close(contacts, model.contact.bias.sigmoid().expand_as(contacts))


@torch.no_grad()
def test_a_table_of_places_beside_the_rotation():
    tokens = encode(CHAINS)
    plain = LanguageModel(CONFIG, PositionConfig(PositionKind.rotary)).eval()
    table = LanguageModel(CONFIG, PositionConfig(PositionKind.rotary, table=True)).eval()
    table.load_state_dict(plain.state_dict(), strict=False)
    assert (table({"tokens": tokens}) - plain({"tokens": tokens})).abs().max() > 1e-3
    table.get_parameter("transformer.position.table.table").zero_()
    torch.testing.assert_close(table({"tokens": tokens}), plain({"tokens": tokens}), atol=1e-5, rtol=0)


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="head width 7 must be a multiple of 2"):
        LanguageModel(TransformerConfig(dim=42, num_heads=6), PositionConfig(PositionKind.rotary))


def test_contacts_say_what_they_need():
    model = make_model()
    with pytest.raises(ValueError, match="encode\\(\\) writes them"):
        model.contacts(encode(CHAINS)[:, 1:])
    with pytest.raises(ValueError, match="mixer=softmax; linear has none"):
        make_model(mixer=Mixer.linear).contacts(encode(CHAINS))
