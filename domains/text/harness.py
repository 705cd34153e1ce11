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
from domains.text.generate import Sampling, generate_text


class Harness(TemplateLM):
    """A language model with the interface of the harness: the likelihood of a text after another, and generation.

    An empty context, or a document's beginning, is the token that begins a text; without one, the token between
    documents, or a newline.

    Args:
        adapter: without n-gram lookup, with a tokenizer.
        batch_size: rows that are read at once.
    Raises:
        ValueError: for a model without tokenizer, or with n-gram lookup.
    """

    def __init__(self, adapter: Adapter, batch_size: int = 32):
        super().__init__()
        if adapter.tokenizer is None or adapter.ngram_orders:
            raise ValueError(
                "the harness needs a model with a tokenizer, and without n-gram lookup (data.ngram_lookup=[])"
            )
        self.adapter, self.tokenizer, self.batch_size = adapter.eval(), adapter.tokenizer, batch_size

    @property
    def eot_token_id(self) -> int:
        return (
            int(self.tokenizer.encode("\n")[0]) if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id
        )

    @property
    def prefix_token_id(self) -> int:
        """The token that begins an empty context: the one that begins a text, if the tokenizer has one."""
        return self.tokenizer.prompt_prefix[0] if self.tokenizer.prompt_prefix else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokenizer.encode(string).tolist()

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return ln p of whole documents: every token once, in windows side by side, the last one full."""
        rows = [[self.prefix_token_id, *self.tok_encode(str(request.args[0]))] for request in requests]
        return [nats for nats, _ in self.score([(row, 1) for row in rows])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return [self._generate(*request.args) for request in requests]

    def _generate(self, prompt: str, gen_kwargs: dict[str, Any]) -> str:
        stop_strings = gen_kwargs.get("until") or []
        sampling = Sampling(
            length=gen_kwargs.get("max_gen_toks", 256),
            temperature=gen_kwargs.get("temperature", 0.0) if gen_kwargs.get("do_sample") else 0.0,
            top_k=gen_kwargs.get("top_k"),
            top_p=gen_kwargs.get("top_p", 1.0),
        )
        return generate_text(
            self.adapter,
            [prompt],
            sampling,
            stop_strings=[stop_strings] if isinstance(stop_strings, str) else stop_strings,
        ).texts[0]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        return self.score([(before + after, len(before)) for _, before, after in requests])

    @torch.inference_mode()
    def score(self, rows: Sequence[tuple[list[int], int]]) -> list[tuple[float, bool]]:
        """For each (tokens, first), return Σ ln p of the tokens from `first` on, and whether all of them are the most
        likely."""
        sums, greedy = [0.0] * len(rows), [True] * len(rows)
        parts = [
            (n, *part)
            for n, (row, first) in enumerate(rows)
            for part in rolling_windows(row, first, self.adapter.context)
        ]
        parts.sort(key=lambda part: len(part[1]))  # rows of a batch have about the same length
        for start in range(0, len(parts), self.batch_size):
            chunk = parts[start : start + self.batch_size]
            longest = max(len(row) for _, row, _ in chunk)
            ids = torch.tensor([row + [0] * (longest - len(row)) for _, row, _ in chunk])  # padding comes last: causal
            batch = to_device({"tokens": ids[:, :-1]}, self.adapter.device)
            logprobs = self.adapter(batch).float().log_softmax(-1).cpu()  # (B, L, V)
            for (n, row, count), logprob in zip(chunk, logprobs, strict=True):
                logprob, targets = logprob[len(row) - 1 - count : len(row) - 1], torch.tensor(row[-count:])
                sums[n] += logprob.gather(1, targets[:, None]).double().sum().item()
                greedy[n] &= bool((logprob.argmax(-1) == targets).all())
        return list(zip(sums, greedy, strict=True))


def rolling_windows(row: list[int], first: int, L: int) -> Iterator[tuple[list[int], int]]:
    """Yield (tokens, count): windows of at most L + 1 tokens, whose last `count` make up row[first:], each once."""
    for begin in range(first, len(row), L):
        end = min(begin + L, len(row))
        yield row[max(0, end - L - 1) : end], end - begin
