"""The gated delta rule: a matrix memory that corrects what it stored under a key before it stores anew.

    S_t = α_t S_{t-1} + β_t k_t (v_t - α_t S_{t-1}ᵀ k_t)ᵀ,   out_t = S_tᵀ q_t

α = 1 is the plain delta rule (Schlag et al. 2021); with gates: Yang et al. 2024, "Gated Delta Networks". Causal only.

Shapes: B batch · H heads · L tokens · D key width · E value width · c tokens a chunk
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.cache import State
from core.mixers.mask_utils import causal_and_padding
from core.mixers.softmax import MultiHeadAttention

Keys = Float[Tensor, "B H L D"]
Values = Float[Tensor, "B H L E"]
Scalars = Float[Tensor, "B H L"]
Memory = Float[Tensor, "B H D E"]


class DeltaAttention(MultiHeadAttention):
    """A matrix memory under the delta rule (Schlag et al. 2021), gated or not (Yang et al. 2024); causal only.

    How much is written (β) and, with gates, how much is kept (α) is read off each token.

    Args:
        gated: let the memory fade; α = 1 if not. The other arguments are those of MultiHeadAttention.
    """

    def __init__(self, dim: int, num_heads: int, *, gated: bool = True, **attention):
        super().__init__(dim, num_heads, **attention)
        self.name = "gated_delta" if gated else "delta"
        self.write = nn.Linear(dim, num_heads)
        self.keep = nn.Linear(dim, num_heads) if gated else None
        if self.keep is not None:
            nn.init.constant_(self.keep.bias, 4.0)  # α = 0.98 at first: a memory of some fifty tokens

    def make_cache(self, capacity: int) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        return State()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B L C"], *, mask, bias=None, rotation=None, cache: State | None = None, **_
    ) -> Float[Tensor, "B L C"]:
        causal, valid = causal_and_padding(self.name, x, mask, bias, cache)
        if not causal:
            raise ValueError(f"mixer={self.name} is causal only; this domain lets tokens see what follows them")
        q, k, v = self.project(x, rotation)
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1) for t in (k, v))  # (B, H, L, D)
        beta = self.write(x).sigmoid().mT  # (B, H, L)
        log_alpha = torch.zeros_like(beta) if self.keep is None else F.logsigmoid(self.keep(x)).mT
        if valid is not None:
            beta = beta * valid[:, None]
        before = cache.tensors[0] if cache is not None and cache.tensors else None
        heads, memory = chunked(unit(q), unit(k), v, beta, log_alpha, before)
        if cache is not None:
            cache.keep(x.shape[1], memory)
        return self.join(heads)


def recurrent(
    q: Keys, k: Keys, v: Values, beta: Scalars, log_alpha: Scalars, memory: Memory | None = None
) -> tuple[Values, Memory]:
    """The definition, token by token.

    Args:
        q, k: keys are of unit length.
        v: what is stored under them.
        beta: how much of a correction is written, in [0, 1].
        log_alpha: log of how much is kept from one token to the next, at most 0.
        memory: what came before; zeros if None.
    Returns:
        what was read, and the memory after the last token.
    """
    S = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]) if memory is None else memory
    out = []
    for t in range(q.shape[2]):
        S = S * log_alpha[:, :, t, None, None].exp()
        wrong = v[:, :, t] - (k[:, :, t, None] @ S)[:, :, 0]  # (B, H, E)
        S = S + k[:, :, t, :, None] * (beta[:, :, t, None] * wrong)[:, :, None]
        out.append((q[:, :, t, None] @ S)[:, :, 0])
    return torch.stack(out, 2), S


def chunked(
    q: Keys,
    k: Keys,
    v: Values,
    beta: Scalars,
    log_alpha: Scalars,
    memory: Memory | None = None,
    chunk: int = 64,
) -> tuple[Values, Memory]:
    """The same by chunks: within one, the corrections solve a triangular system (Yang et al. 2024, WY representation).

    With g the running sum of log α in the chunk, A_ij = β_i exp(g_i - g_j) k_i·k_j for j < i, S the memory before it:

        (I + A) w = β ⊙ (v - exp(g) k S),   out = exp(g) q S + (exp(g_i - g_j) q_i·k_j)_{j≤i} w
    """
    L = q.shape[2]
    S = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]) if memory is None else memory
    out = []
    for start in range(0, L, chunk):
        part = slice(start, start + chunk)
        qc, kc, vc, b = q[:, :, part], k[:, :, part], v[:, :, part], beta[:, :, part, None]
        g = log_alpha[:, :, part].cumsum(-1)  # (B, H, c)
        decay = (g[..., :, None] - g[..., None, :]).tril().exp().tril()  # (B, H, c, c), from j to i
        A = (b * (kc @ kc.mT) * decay).tril(-1)
        right = b * (vc - g[..., None].exp() * (kc @ S))  # (B, H, c, E)
        exact = torch.promote_types(right.dtype, torch.float32)  # there is no solver in half precision
        w = torch.linalg.solve_triangular(_plus_eye(A).to(exact), right.to(exact), upper=False, unitriangular=True)
        w = w.to(right.dtype)
        out.append(g[..., None].exp() * (qc @ S) + ((qc @ kc.mT) * decay) @ w)
        last = g[..., -1:, None]
        S = last.exp() * S + (kc * (last - g[..., None]).exp()).mT @ w
    return torch.cat(out, 2), S


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return F.normalize(x, dim=-1)


def _plus_eye(a: Tensor) -> Tensor:
    return a + torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
