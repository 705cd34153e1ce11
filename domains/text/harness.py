"""Our models in EleutherAI's lm-evaluation-harness (pip install lm-eval).

    lm_eval.simple_evaluate(model=Harness(adapter), tasks=["mine"], task_manager=TaskManager(include_path="tasks"))

Shapes: B rows · L tokens · V vocabulary
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from domains.adapter import to_device
from domains.text.adapter import Adapter
from domains.text.generate import Sampling, texts


class Harness(TemplateLM):
    """A language model as the harness asks it: how likely one text is after another, and how one goes on.

    What is empty, or a document's beginning, follows the token that begins a text; where there is none, the one between
    documents, or a newline.

    Args:
        adapter: without recall, with a tokenizer.
        batch_size: rows that are read at once.
    Raises:
        ValueError: for a model without tokenizer, or with recall.
    """

    def __init__(self, adapter: Adapter, batch_size: int = 32):
        super().__init__()
        if adapter.tokenizer is None or adapter.orders:
            raise ValueError("the harness needs a model with a tokenizer, and without recall (data.recall=[])")
        self.adapter, self.tokens, self.batch_size = adapter.eval(), adapter.tokenizer, batch_size

    @property
    def eot_token_id(self) -> int:
        return int(self.tokens.encode("\n")[0]) if self.tokens.end is None else self.tokens.end

    @property
    def prefix_token_id(self) -> int:
        """Begin an empty context with the token that begins a text, where the tokenizer has one."""
        return self.tokens.first[0] if self.tokens.first else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokens.encode(string).tolist()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """ln p of whole documents: every token once, in windows side by side, the last one full."""
        rows = [[self.prefix_token_id, *self.tok_encode(str(request.args[0]))] for request in requests]
        return [nats for nats, _ in self.scored([(row, 1) for row in rows])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return [self._written(*request.args) for request in requests]

    def _written(self, prompt: str, asked: dict[str, Any]) -> str:
        stops = asked.get("until") or []
        how = Sampling(
            length=asked.get("max_gen_toks", 256),
            temperature=asked.get("temperature", 0.0) if asked.get("do_sample") else 0.0,
            top_k=asked.get("top_k"),
            top_p=asked.get("top_p", 1.0),
        )
        return texts(self.adapter, [prompt], how, stops=[stops] if isinstance(stops, str) else stops).texts[0]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        return self.scored([(before + after, len(before)) for _, before, after in requests])

    @torch.inference_mode()
    def scored(self, rows: Sequence[tuple[list[int], int]]) -> list[tuple[float, bool]]:
        """For each (tokens, first): Σ ln p of the tokens from `first` on, and whether all of them are the likeliest."""
        sums, greedy = [0.0] * len(rows), [True] * len(rows)
        parts = [
            (n, *part) for n, (row, first) in enumerate(rows) for part in windows(row, first, self.adapter.context)
        ]
        parts.sort(key=lambda part: len(part[1]))  # those of a batch are of about one length
        for at in range(0, len(parts), self.batch_size):
            some = parts[at : at + self.batch_size]
            longest = max(len(row) for _, row, _ in some)
            ids = torch.tensor([row + [0] * (longest - len(row)) for _, row, _ in some])  # nothing sees what follows it
            batch = to_device({"tokens": ids[:, :-1]}, self.adapter.device)
            shares = self.adapter(batch).float().log_softmax(-1).cpu()  # (B, L, V)
            for (n, row, count), share in zip(some, shares, strict=True):
                share, wanted = share[len(row) - 1 - count : len(row) - 1], torch.tensor(row[-count:])
                sums[n] += share.gather(1, wanted[:, None]).double().sum().item()
                greedy[n] &= bool((share.argmax(-1) == wanted).all())
        return list(zip(sums, greedy, strict=True))


def windows(row: list[int], first: int, L: int) -> Iterator[tuple[list[int], int]]:
    """(tokens, count): windows of at most L + 1 tokens, whose last `count` make up row[first:], each once."""
    for begin in range(first, len(row), L):
        end = min(begin + L, len(row))
        yield row[max(0, end - L - 1) : end], end - begin
