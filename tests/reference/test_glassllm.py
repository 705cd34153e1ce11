"""The real Llama of 0.85 M parameters in the package glassllm 0.1.0, against its own forward pass, in NumPy."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.convert import half_split
from domains.text.adapter import Adapter
from domains.text.convert import from_transformers
from domains.text.generate import Sampling, generate

glassllm: Any = pytest.importorskip("glassllm", reason="pip install glassllm==0.1.0")
LENGTH = 127  # of the 128 that it was trained on
NAMES = {  # in a block; theirs -> transformers'
    "norm1.gamma": "input_layernorm",
    "attn.W_Q": "self_attn.q_proj",
    "attn.W_K": "self_attn.k_proj",
    "attn.W_V": "self_attn.v_proj",
    "attn.W_O": "self_attn.o_proj",
    "norm2.gamma": "post_attention_layernorm",
    "ffn.W1": "mlp.gate_proj",
    "ffn.W3": "mlp.up_proj",
    "ffn.W2": "mlp.down_proj",
}


def ported(theirs: Any) -> Adapter:
    """Their linear layers hold (in, out), and their rotary pairs stand side by side."""
    sizes, state = asdict(theirs.cfg), dict[str, Tensor]()
    for name, parameter in theirs.named_parameters().items():
        weight = torch.from_numpy(parameter.data.astype(np.float32))
        if name.startswith("blocks."):
            _, n, part = name.split(".", 2)
            state[f"model.layers.{n}.{NAMES[part]}.weight"] = weight.T if weight.dim() == 2 else weight
        else:
            state[{"E": "model.embed_tokens.weight", "norm_f.gamma": "model.norm.weight"}[name]] = weight
    config = {
        "model_type": "llama",
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["d_model"],
        "intermediate_size": len(state["model.layers.0.mlp.up_proj.weight"]),
        "num_hidden_layers": sizes["n_layers"],
        "num_attention_heads": sizes["n_heads"],
        "num_key_value_heads": sizes["n_kv_heads"],
        "max_position_embeddings": sizes["max_len"],
        "rms_norm_eps": sizes["eps"],
        "rope_theta": sizes["rope_base"],
        "tie_word_embeddings": True,
    }
    for name, weight in state.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            head = sizes["d_model"] // sizes["n_heads"]
            state[name] = weight[half_split(len(weight) // head, head)]
    return from_transformers(config, state)


@pytest.mark.parametrize("language", glassllm.LANGUAGES)
@torch.inference_mode()
def test_logits_and_greedy_text_are_theirs(language):
    theirs, tokenizer = glassllm.load_pretrained(language)
    ours, ids = ported(theirs), np.random.default_rng(0).integers(4, theirs.cfg.vocab_size, (2, LENGTH))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.data.size for p in theirs.named_parameters().values())
    with glassllm.no_grad():
        want = torch.from_numpy(theirs.forward(ids).data).float()
    assert want.std() > 1
    torch.testing.assert_close(ours({"tokens": torch.from_numpy(ids)}), want, rtol=0, atol=3e-5)
    prompt = tokenizer.encode("Alice was beginning to")
    length = LENGTH - len(prompt)
    greedy = [step.token for step in theirs.generate(prompt, length, greedy=True)]
    assert list(generate(ours, prompt, Sampling(length, temperature=0))) == greedy
