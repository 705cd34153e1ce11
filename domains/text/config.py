"""Configuration of the text domain: plain dataclasses, free of torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    python_docs = "python_docs"  # pydoc_data.topics: the reference prose in every CPython
    files = "files"  # the text file data.path, or all text files in that folder
    url = "url"  # downloaded once from data.url into $ATTEND_DATA, unless data.path is there
    datasets = "datasets"  # the Hugging Face data set data.path, or what its loader data.path makes of data.files


class TokenizerKind(Enum):
    bytes = "bytes"
    characters = "characters"  # of the data
    bpe = "bpe"  # byte pairs, trained on the training split
    file = "file"  # data.tokenizer_path: a tokenizer.json, a folder with GPT-2's two files, or another run


@dataclass
class DataConfig:
    """The text, and how much of it the model sees at once."""

    domain: str = "text"
    source: Source = Source.python_docs
    path: str | None = None  # of a text file, or of a folder of them
    url: str | None = None  # for source=url: what is downloaded, unless data.path is given
    sha256: str | None = None  # of what is downloaded
    files: str | None = None  # for source=datasets: the files that a loader such as json reads
    column: str = "text"  # for source=datasets: the column of the text
    val: float = 0.02  # of the text, before the test part: a share of its bytes below 1, else a number of bytes
    test: float = 0.1  # the last part of the text; as for val
    tokenizer: TokenizerKind = TokenizerKind.bytes  # what a token is
    tokenizer_path: str | None = None  # for tokenizer=file: a tokenizer.json, GPT-2's two files, or another run
    vocab_size: int = 4096  # number of tokens of tokenizer=bpe
    context: int = 256  # tokens a sample
    stride: int | None = None  # tokens of a window that are predicted in evaluation: the last half if None
    packed: bool = False  # tokens attend to their own document alone
    # lengths of the n-grams that the next byte is looked up by (domains/text/ngram_lookup.py); [] for a plain model
    ngram_lookup: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 8, 12, 16, 24, 32])
    batch_size: int = 8  # windows of text a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself


@dataclass
class ModelConfig(TransformerConfig):
    """A causal language model."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # of a mixer (core/config.py)
    domain: str = "text"
    tie_word_embeddings: bool = False  # the embedding is the output head, too (Press & Wolf 2017)
    gpt2_init: bool = False  # initialise all weights as GPT-2 does
    softcap: float | None = None  # logits are squashed smoothly to within this of 0 (Gemma 2)
    lora_rank: int | None = None  # train only low-rank adapters of this rank in the blocks (domains/text/lora.py)
