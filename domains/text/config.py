"""What configures the text domain: plain dataclasses, free of torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    python_docs = "python_docs"  # pydoc_data.topics: the reference prose inside every CPython
    files = "files"  # the text file data.path, or all text files in that folder
    url = "url"  # downloaded once from data.url into $ATTEND_DATA, unless data.path is there
    datasets = "datasets"  # the Hugging Face data set data.path, or what its loader data.path makes of data.files


class TokenizerKind(Enum):
    bytes = "bytes"
    characters = "characters"  # those of the data
    bpe = "bpe"  # byte pairs, learnt from the training part
    file = "file"  # data.tokenizer_path: a tokenizer.json, a folder with GPT-2's two files, or another run


@dataclass
class DataConfig:
    """Which text, and how much of it the model sees at once."""

    domain: str = "text"
    source: Source = Source.python_docs
    path: str | None = None  # of a text file, or of a folder of them
    url: str | None = None  # for source=url: what is downloaded, unless data.path is given
    sha256: str | None = None  # of what is downloaded
    files: str | None = None  # for source=datasets: the files that a loader such as json reads
    column: str = "text"  # for source=datasets: where the text stands
    val: float = 0.02  # of the text, before the test part: a share of its bytes, or so many from 1 on
    test: float = 0.1  # the last part of the text, counted likewise
    tokenizer: TokenizerKind = TokenizerKind.bytes  # what a token is
    tokenizer_path: str | None = None  # for tokenizer=file: a tokenizer.json, GPT-2's two files, or another run
    vocabulary: int = 4096  # how many tokens tokenizer=bpe learns
    context: int = 256  # tokens a sample
    stride: int | None = None  # how many of a window's tokens are predicted in evaluation: the last half if None
    packed: bool = False  # no token sees another document
    # the orders at which a byte recalls what followed it before (domains/text/ngram_lookup.py); [] for a plain model
    recall: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 8, 12, 16, 24, 32])
    batch_size: int = 8  # stretches of text a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself


@dataclass
class ModelConfig(TransformerConfig):
    """A causal language model."""

    needs: ClassVar[frozenset[str]] = frozenset({"causal"})  # of a mixer (core/config.py)
    domain: str = "text"
    tied: bool = False  # the embedding is the output head too (Press & Wolf 2017)
    gpt2_init: bool = False  # all weights drawn as GPT-2's are
    softcap: float | None = None  # scores are bent to lie within this of 0 (Gemma 2)
    lora: int | None = None  # train only a change of this rank to each matrix in the blocks (domains/text/lora.py)
