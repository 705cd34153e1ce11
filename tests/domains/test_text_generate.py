"""Writing text: what is kept changes nothing, rows do not depend on each other, and every rule of choice by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.cache import State
from core.config import Activation, Mixer, Norm, PositionConfig, PositionKind, TransformerConfig
from core.mixers.mask_utils import causal_and_padding
from core.mixers.registry import MIXERS
from domains.text.adapter import Adapter
from domains.text.config import ModelConfig
from domains.text.decoder import CachedDecoder, Decoder, UncachedDecoder
from domains.text.generate import (
    DraftModel,
    Sampling,
    StreamDetokenizer,
    generate,
    generate_text,
    generate_tokens,
    sample,
)
from domains.text.ngram_lookup import NgramLookup
from domains.text.tokenizers import Bytes, Characters

CONTEXT, VOCABULARY = 23, 31
PROMPTS = [[5, 3, 7, 3, 5, 3, 7], [2], [11] * 3 + [4, 9] * 14]  # the last is longer than the context
ATTENDING = (Mixer.softmax, Mixer.window)
KINDS = [PositionKind.none, PositionKind.learned, PositionKind.sinusoidal, PositionKind.rotary]
SCORED = [PositionKind.alibi, PositionKind.relative]
CASES = [(mixer, kind) for mixer in Mixer for kind in [*KINDS, *(SCORED if mixer in ATTENDING else [])]]
SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"activation": Activation.gelu_tanh, "tie_word_embeddings": True, "gpt2_init": True},
    "llama": {"norm": Norm.rms, "activation": Activation.swiglu, "linear_bias": False, "num_kv_heads": 2},
    "modern": {"norm": Norm.rms, "activation": Activation.relu2, "linear_bias": False, "qk_norm": True, "softcap": 3.0},
    "rest": {"activation": Activation.relu, "layer_scale": 0.5, "embed_norm": True, "norm_eps": 1e-2, "lora_rank": 3},
    "layer norm without shift": {
        "activation": Activation.gelu,
        "linear_bias": False,
        "num_kv_heads": 1,
        "qk_norm": True,
    },
}


def make(mixer: Mixer = Mixer.softmax, kind: PositionKind = PositionKind.rotary, **settings: Any) -> Adapter:
    """With weights that make every part matter."""
    torch.manual_seed(0)  # low-rank changes are drawn as the model is made
    config = ModelConfig(dim=24, depth=2, num_heads=4, mixer=mixer, window=5, mlp_ratio=1.5, **settings)
    spec = {"context": CONTEXT, "vocab_size": VOCABULARY, "ngram_orders": [], "ngram_text": ""}
    adapter = Adapter(config, PositionConfig(kind), spec)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return adapter.eval()


def rows_of(adapter: Adapter, how: Sampling, prompts=PROMPTS, **options) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for row, token in generate_tokens(adapter, prompts, how, **options):
        rows[row].append(token)
    return rows


# What is kept


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("mixer", "kind"), CASES, ids=lambda value: value.value)
def test_cached_text_is_the_uncached_text_and_that_of_every_row_alone(mixer, kind, temperature):
    adapter, how = make(mixer, kind), Sampling(length=2 * CONTEXT, temperature=temperature)  # windows restart
    cached = rows_of(adapter, how)
    assert cached == rows_of(adapter, how, cached=False)
    assert temperature or cached == [list(generate(adapter, prompt, how)) for prompt in PROMPTS]
    assert not temperature or all(len(set(row)) > 5 for row in cached)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", [*KINDS, *SCORED], ids=lambda kind: kind.value)
@torch.inference_mode()
def test_decoders_give_the_logits_of_the_model(settings, kind):
    """Prompts of one length and of several, then tokens one by one and two at once."""
    adapter = make(kind=kind, **settings)
    for prompts in ([PROMPTS[0]] * 2, PROMPTS[:2]):
        decoders: list[Decoder] = [UncachedDecoder(adapter), CachedDecoder(adapter, CONTEXT)]
        logits = [[decoder.prefill([plain(prompt) for prompt in prompts])] for decoder in decoders]
        for new in ([3], [8], [1, 4], [6]):
            for decoder, seen in zip(decoders, logits, strict=True):
                seen.append(decoder.step([plain(new), plain([token + 2 for token in new])]))
        want, got = (torch.cat(seen, 1) for seen in logits)
        assert want.std() > 0.3
        rounding = 5e-5 * want.abs().max().item()  # float32 roundings in another order, which deep blocks amplify
        torch.testing.assert_close(got, want, rtol=1e-4, atol=max(2e-5, rounding))


def plain(tokens: list[int]) -> list[tuple[int, list[int]]]:
    return [(token, []) for token in tokens]


class Means(nn.Module):
    """A mixer that no file of the project knows: the mean of the tokens so far."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.out = nn.Linear(config.dim, config.dim)

    def make_cache(self, capacity: int) -> State:
        return State()

    def forward(self, x, *, mask, bias=None, rotation=None, cache=None, probe=None, last=None):
        causal, valid = causal_and_padding("means", x, mask, bias, cache)
        assert causal
        weight = torch.ones(x.shape[:2]) if valid is None else valid.to(x.dtype)  # (B, L)
        new = torch.cat([x * weight[..., None], weight[..., None]], -1)  # (B, L, C + 1)
        sums = new.cumsum(1) + (cache.tensors[0] if cache and cache.tensors else 0)
        if cache is not None:
            cache.keep(x.shape[1], sums[:, -1:])
        return self.out(sums[..., :-1] / sums[..., -1:].clamp(min=1))


def test_a_mixer_that_is_registered_generates(monkeypatch):
    """Cached as uncached, in rows of several lengths, without a line of its own."""
    monkeypatch.setitem(MIXERS, Mixer.recurrence, Means)
    adapter = make(Mixer.recurrence)
    assert isinstance(adapter.transformer.blocks[0].mixer, Means)
    for temperature in (0.0, 1.0):
        how = Sampling(length=2 * CONTEXT, temperature=temperature)
        rows = rows_of(adapter, how)
        assert rows == rows_of(adapter, how, cached=False)
        assert temperature or rows == [list(generate(adapter, prompt, how)) for prompt in PROMPTS]
    assert all(len(set(row)) > 3 for row in rows)


@torch.inference_mode()
def test_what_is_cropped_was_never_read():
    adapter = make()
    one, other = CachedDecoder(adapter, CONTEXT), CachedDecoder(adapter, CONTEXT)
    for each in (one, other):
        each.prefill([plain(PROMPTS[0])])
    one.step([plain([1, 2, 3])])
    one.crop(8)
    other.step([plain([1])])
    got, want = one.step([plain([9])]), other.step([plain([9])])  # what was kept came of products of other shapes
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * max(1.0, want.abs().max().item()))


def test_rows_end_by_themselves():
    adapter, how = make(), Sampling(length=CONTEXT, temperature=0)
    whole = rows_of(adapter, how)
    counts = [0, 0, 0]

    def should_stop(row: int, token: int) -> bool:
        counts[row] += 1
        return counts[row] == (4, 9, 2)[row]

    assert rows_of(adapter, how, should_stop=should_stop) == [whole[0][:4], whole[1][:9], whole[2][:2]]


def test_ngram_matches_are_those_of_the_whole_text():
    spec = {"context": CONTEXT, "ngram_orders": [1, 3], "ngram_text": "abcabdab"}
    torch.manual_seed(3)
    adapter = Adapter(ModelConfig(dim=24, num_heads=3, depth=1), PositionConfig(PositionKind.rotary), spec)
    torch.nn.init.normal_(adapter.lm_head.weight, std=0.5)
    how = Sampling(length=2 * CONTEXT, temperature=0)
    prompts = [list(b"abcab"), list(b"dabd")]
    assert rows_of(adapter, how, prompts) == rows_of(adapter, how, prompts, cached=False)
    lookup = NgramLookup(b"abcabdab", [1, 3])
    first = [(token, lookup.append(token)) for token in prompts[0]]
    with torch.inference_mode():
        want = UncachedDecoder(adapter).prefill([first])[0, -1].argmax().item()
    assert next(generate(adapter, prompts[0], how)) == want


# Guesses


def steps_of(adapter: Adapter) -> list[int]:
    """How many tokens each forward pass of a model reads, from now on."""
    steps: list[int] = []
    adapter.transformer.register_forward_pre_hook(
        lambda _, given, named: steps.append(named["x"].shape[1]), with_kwargs=True
    )
    return steps


@pytest.mark.parametrize("temperature", [0.0, 1.2])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_guesses_save_steps_and_change_nothing(temperature, penalty):
    adapter = make()
    steps = steps_of(adapter)
    plain = Sampling(length=3 * CONTEXT, temperature=temperature, repetition_penalty=penalty, seed=5, top_k=None)
    guessed = Sampling(**(vars(plain) | {"lookup": 4}))
    for prompt in PROMPTS:
        want, before = list(generate(adapter, prompt, plain)), len(steps)
        steps.clear()
        assert list(generate(adapter, prompt, guessed)) == want
        if temperature == 0 and penalty == 1:  # this model repeats itself
            assert len(steps) < before or len(prompt) == 1
        steps.clear()


@pytest.mark.parametrize(
    ("adapter", "prompts"),
    [(make(), PROMPTS), (make(Mixer.window), PROMPTS[:1]), (make(Mixer.linear), PROMPTS[:1])],
    ids=["several prompts", "window", "linear"],
)
def test_guesses_that_cannot_be(adapter, prompts):
    for how, draft in ((Sampling(lookup=2), None), (Sampling(), make())):
        with pytest.raises(ValueError, match=r"are for one prompt, .* with model\.mixer=softmax; here are [13], "):
            next(generate_tokens(adapter, prompts, how, draft=draft))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_saves_steps_and_changes_nothing(temperature):
    """One that writes as the model does, and one that seldom does."""
    adapter, like = make(), make()
    with torch.no_grad():
        for parameter in like.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    unlike = make(kind=PositionKind.learned, num_kv_heads=2, activation=Activation.relu)
    how, steps = Sampling(length=3 * CONTEXT, temperature=temperature, seed=5, top_k=None), steps_of(adapter)
    for prompt in PROMPTS:
        steps.clear()
        want = list(generate(adapter, prompt, how))
        assert len(steps) == 3 * CONTEXT
        for draft in (like, unlike):
            steps.clear()
            got = [token for _, token in generate_tokens(adapter, [prompt], how, draft=draft)]
            assert got == want
            assert len(steps) < (2 * CONTEXT if draft is like and temperature == 0 else 3 * CONTEXT + 1)


@torch.inference_mode()
def test_what_a_draft_guesses_is_what_it_would_write():
    """Also after its guesses were wrong, and after the text began anew."""
    draft = DraftModel(make(), CONTEXT)
    for tokens in ([3, 1, 4], [3, 1, 4, 1, 5, 9], [3, 1, 4, 1, 5, 9, 2, 6], [7], [7, 3, 8]):
        assert draft(tokens, 4) == list(generate(make(), tokens, Sampling(4, temperature=0)))
    assert draft([7, 3, 8], 0) == []
    assert draft([7, 3, 8, 2], 2) == list(generate(make(), [7, 3, 8, 2], Sampling(2, temperature=0)))


def test_a_draft_that_does_not_fit():
    spec = {"context": CONTEXT, "vocab_size": VOCABULARY, "ngram_orders": [], "ngram_text": ""}
    for changes, message in (
        ({"vocab_size": VOCABULARY + 1}, r"another tokenizer than the model; .* data\.tokenizer_path="),
        ({"context": CONTEXT - 1}, f"context of {CONTEXT - 1} tokens is shorter .* data.context={CONTEXT}"),
    ):
        draft = Adapter(ModelConfig(dim=24, num_heads=3), PositionConfig(PositionKind.rotary), spec | changes)
        with pytest.raises(ValueError, match=message):
            next(generate_tokens(make(), PROMPTS[:1], Sampling(), draft=draft))


# The rules of choice

SCORES = torch.tensor([[0.0, 3.0, 2.0, -1.0]])


def chosen(how: Sampling, seen_tokens: set[int] | None = None, scores=SCORES, times: int = 200) -> list[int]:
    draw = np.random.default_rng(0)
    return [sample(scores, how, [seen_tokens or set()], [draw])[0] for _ in range(times)]


def test_shares_are_those_of_softmax():
    found = np.bincount(chosen(Sampling(temperature=2.0, top_k=None), times=5000), minlength=4) / 5000
    want = (SCORES[0] / 2).softmax(-1).numpy()
    assert np.abs(found - want).max() < 0.03  # four standard deviations


def test_top_k_and_top_p():
    assert set(chosen(Sampling(temperature=9.0, top_k=2))) == {1, 2}
    shares = SCORES[0].softmax(-1).sort(descending=True).values  # 0.70, 0.26, 0.03, 0.01
    for kept, (below, above) in enumerate([(0.01, shares[0] - 0.01), (shares[0] + 0.01, shares[:2].sum() - 0.01)], 1):
        for top_p in (below, above):
            found = chosen(Sampling(temperature=1.0, top_k=None, top_p=float(top_p)), times=400)
            assert set(found) == set([1, 2][:kept])
    assert set(chosen(Sampling(temperature=9.0, top_k=None, top_p=1.0))) == {0, 1, 2, 3}


def test_repetition_is_punished_on_either_side_of_zero():
    """3 / 2 falls below 2; and -1 · 2 below -1.5."""
    assert chosen(Sampling(temperature=0, repetition_penalty=2.0), {1}, times=1) == [2]
    scores = torch.tensor([[-1.0, -1.5]])
    assert chosen(Sampling(temperature=0, repetition_penalty=2.0), {0}, scores, times=1) == [1]
    assert chosen(Sampling(temperature=0, repetition_penalty=1.0), {0}, scores, times=1) == [0]


def test_seeds():
    adapter, how = make(), Sampling(length=41, temperature=1.5, seed=5)
    same = rows_of(adapter, how, [PROMPTS[0]] * 2)
    assert same == rows_of(adapter, how, [PROMPTS[0]] * 2)
    assert same[0] == list(generate(adapter, PROMPTS[0], how))
    assert same[0] != same[1]
    assert same[0] != list(generate(adapter, PROMPTS[0], Sampling(41, 1.5, seed=6)))


@pytest.mark.parametrize(
    "wrong",
    [{"length": 0}, {"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"repetition_penalty": 0.0}],
)
def test_sampling_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="sampling needs"):
        Sampling(**wrong)


# Tokens as text


def push_all(detokenizer: StreamDetokenizer, tokens) -> list[str]:
    out = []
    for token in tokens:
        out.append(detokenizer.push(token))
        if detokenizer.finished:
            return out
    return [*out, detokenizer.flush()]


def test_characters_are_whole():
    assert push_all(StreamDetokenizer(Bytes()), "aé€😀".encode()) == [
        "a",
        "",
        "é",
        "",
        "",
        "€",
        "",
        "",
        "",
        "😀",
        "",
    ]
    assert "".join(push_all(StreamDetokenizer(Bytes()), b"a\xff\xffb\xe2\x82")) == "a\ufffd\ufffdb\ufffd"


def test_a_stop_string_is_not_said_nor_what_may_become_one():
    detokenizer = StreamDetokenizer(Bytes(), ["\n\n", "END"])
    assert push_all(detokenizer, b"a\nbEN\n\nc") == ["a", "", "\nb", "", "", "EN", ""]
    assert detokenizer.finished
    assert push_all(StreamDetokenizer(Bytes(), ["xyz"]), b"wxy") == ["w", "", "", "xy"]


def test_the_end_of_a_document_ends_the_text():
    detokenizer = StreamDetokenizer(Characters("ab\0"))
    assert push_all(detokenizer, [1, 2, 0, 1]) == ["a", "b", ""]
    assert detokenizer.finished


def spoken() -> Adapter:
    spec = {"context": CONTEXT, "vocab_size": 256, "ngram_orders": [], "ngram_text": ""}
    torch.manual_seed(2)
    adapter = Adapter(ModelConfig(dim=24, num_heads=3), PositionConfig(PositionKind.rotary), spec)
    torch.nn.init.normal_(adapter.lm_head.weight, std=0.5)
    with torch.no_grad():  # letters alone
        adapter.lm_head.weight[[n for n in range(256) if not 97 <= n <= 102]] *= 0.01
    return adapter


def test_texts_are_shown_as_they_come_and_end_at_a_stop_string():
    adapter, how, prompts = spoken(), Sampling(length=47, temperature=1.0, top_k=6, seed=3), ["abc", "d"]
    shown: list[tuple[int, str]] = []
    whole = generate_text(adapter, prompts, how, on_text=lambda row, text: shown.append((row, text)))
    assert whole.tokens == 2 * 47
    assert whole.seconds > 0
    for row, text in enumerate(whole.texts):
        assert "".join(part for n, part in shown if n == row) == text
        assert len(text) == 47
    stop = whole.texts[0][9:11]
    short = generate_text(adapter, prompts, how, stop_strings=[stop])
    assert short.texts == [text.partition(stop)[0] for text in whole.texts]
    assert short.tokens < whole.tokens


def test_texts_that_cannot_be():
    adapter = spoken()
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_text(adapter, ["abc", ""], Sampling())
    with pytest.raises(ValueError, match="stop string is empty"):
        generate_text(adapter, ["abc"], Sampling(), stop_strings=[""])
    with pytest.raises(ValueError, match="has no tokenizer"):
        generate_text(make(), ["abc"], Sampling())
    for prompt in ([VOCABULARY], [3, -1]):
        with pytest.raises(ValueError, match="must lie in 0 to 30"):
            next(generate(make(), prompt, Sampling()))
