"""Text of one's own: sources, tokenizers, what lies on disk, documents, and low-rank adapters."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import domains.text.corpus
from core.config import PositionConfig, PositionKind
from domains.adapter import mean_loss
from domains.data import SPLITS
from domains.data_warnings import DataWarning
from domains.text.adapter import Adapter
from domains.text.config import DataConfig, ModelConfig, Source, TokenizerKind
from domains.text.corpus import open_corpus
from domains.text.data import Data
from domains.text.evaluate import write_documents
from domains.text.generate import Sampling, generate_text
from domains.text.predict import read_prompt
from domains.text.sources import CHUNK_SIZE
from domains.text.tokenizers import DOCUMENT_SEPARATOR, Bytes, Characters, load_tokenizer, read_tokenizer, train_bpe

TEXT = "Où est le garçon ? 北京は大きい。 The cat sat on the mat, and the dog on the log.\n" * 41


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEND_DATA", str(tmp_path / "home"))


def configured(path: Path, **changes) -> DataConfig:
    return DataConfig(source=Source.files, path=str(path), ngram_lookup=[], context=17, **changes)


@pytest.fixture
def book(tmp_path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


# tokenizers


MAKERS = {"bytes": Bytes, "characters": lambda: Characters(TEXT), "pairs": lambda: train_bpe([TEXT], 307)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_tokenizer_gives_back_its_text_and_knows_its_bytes(make):
    tokenizer = make()
    tokens = tokenizer.encode(TEXT)
    assert tokenizer.decode(tokens.tolist()) == TEXT
    assert 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size
    assert tokenizer.bytes_per_token()[tokens].sum() == len(TEXT.encode())
    assert np.array_equal(load_tokenizer(tokenizer.spec()).encode(TEXT), tokens)


def test_byte_pairs_are_fewer_than_bytes():
    assert len(train_bpe([TEXT], 307).encode(TEXT)) < 0.6 * len(TEXT.encode())


def test_gpt2s_two_files_and_a_tokenizer_json(tmp_path):
    tokenizer = train_bpe([TEXT], 307)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "two").mkdir()
    tokenizer.backend.model.save(str(tmp_path / "two"))
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "two"):
        assert np.array_equal(read_tokenizer(path).encode("the cat"), tokenizer.encode("the cat"))
    with pytest.raises(ValueError, match=r"holds no tokenizer: give a tokenizer\.json"):
        read_tokenizer(tmp_path / "home")


def test_a_prompt_that_the_tokenizer_lacks():
    spec = {"context": 17, "vocab_size": 3, "tokenizer": Characters("abc").spec(), "ngram_orders": [], "ngram_text": ""}
    adapter = Adapter(ModelConfig(dim=8, depth=1, num_heads=2), PositionConfig(PositionKind.rotary), spec)
    with pytest.raises(ValueError, match="the tokenizer has no 'z', 'é'; it knows the 3 characters"):
        generate_text(adapter, ["azé"], Sampling(3))


# corpus


@pytest.mark.parametrize("kind", [TokenizerKind.bytes, TokenizerKind.characters, TokenizerKind.bpe])
def test_splits_are_the_text_in_order(book, kind):
    config = configured(book, tokenizer=kind, vocab_size=307, val=0.2, test=700)
    corpus = open_corpus(config)
    parts = [corpus.text(*corpus.bounds[split]) for split in SPLITS]
    assert "".join(parts) == TEXT
    size = len(TEXT.encode())
    assert 0 <= len(parts[2].encode()) - 700 < 4  # characters stay whole
    assert abs(len(parts[1].encode()) - 0.2 * size) < 4
    assert open_corpus(config).text(0, 23) == corpus.text(0, 23)


def test_a_folder_is_documents_with_an_end_between(tmp_path):
    folder = tmp_path / "folder"
    (folder / ".git").mkdir(parents=True)
    (folder / "a.txt").write_text("One.\n" * 20)
    (folder / "b.txt").write_text("Two.\n" * 20)
    (folder / "c.bin").write_bytes(b"\0\1\2")
    (folder / ".git" / "config").write_text("hidden")
    with pytest.warns(DataWarning, match=r"^1 of 3 files in .* was left out: 1 binary, .* \(first: c\.bin\)$"):
        corpus = open_corpus(configured(folder))
    assert corpus.document_names == ["a.txt", "b.txt"]
    assert corpus.text(0, len(corpus.tokens)) == "One.\n" * 20 + DOCUMENT_SEPARATOR + "Two.\n" * 20
    assert corpus.document_starts.tolist() == [0, 100]


def test_lines_end_alike_whatever_system_wrote_them(tmp_path):
    path = tmp_path / "gutenberg.txt"
    path.write_bytes(("\ufeff" + "One é.\r\n\r\n" * (CHUNK_SIZE // 11 + 3) + "old Mac\rend").encode())
    corpus = open_corpus(configured(path))
    assert corpus.text(0, len(corpus.tokens)) == "One é.\n\n" * (CHUNK_SIZE // 11 + 3) + "old Mac\nend"
    path.write_bytes("\ufeffOne.\r\nTwo".encode())
    assert read_prompt(str(path)) == "One.\nTwo"


def test_a_picture_is_no_prompt_and_no_text_to_learn_from(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    with pytest.raises(ValueError, match=r"a\.jpg is no text file"):
        read_prompt(str(tmp_path / "a.jpg"))
    for path in (tmp_path, tmp_path / "a.jpg"):
        with pytest.raises(ValueError, match=f"data.path={path} holds no text; give UTF-8 text"):
            open_corpus(configured(path))


def test_a_misspelt_file_is_no_prompt():
    with pytest.raises(ValueError, match=r"there is no file novl\.txt; give a text file, or a prompt in words"):
        read_prompt("novl.txt")
    assert read_prompt("See novl.txt") == "See novl.txt"


def test_what_was_interrupted_is_never_read(book, monkeypatch, tmp_path):
    """The power goes at each write in turn; nothing is left that a later call takes for whole."""
    for fatal in range(3):
        calls = iter(range(9))

        def cut(file, calls=calls, fatal=fatal):
            if next(calls) == fatal:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(domains.text.corpus, "_fsync", cut)
            with pytest.raises(KeyboardInterrupt):
                open_corpus(configured(book))
        assert list((tmp_path / "home" / "text").iterdir()) == []
    corpus = open_corpus(configured(book))
    assert corpus.text(0, len(corpus.tokens)) == TEXT
    assert len(list((tmp_path / "home" / "text").iterdir())) == 1


def test_tokens_are_made_once_and_again_when_the_text_changes(book, monkeypatch):
    open_corpus(configured(book))
    with monkeypatch.context() as patched:
        patched.setattr(domains.text.corpus, "_tokenize", None)  # would fail
        open_corpus(configured(book))
    book.write_text(TEXT + "More.")
    corpus = open_corpus(configured(book))
    assert corpus.text(0, len(corpus.tokens)) == TEXT + "More."


def test_a_text_larger_than_memory(tmp_path):
    """Tokenised and read by a process that may take 48 MB more than it has: the text alone is 80 MB."""
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        for _ in range(80):
            file.write((b"A line of text, and another one.\n" * 31776)[: 2**20])
    code = """
import resource, sys
from domains.text.config import DataConfig, Source
from domains.text.corpus import open_corpus
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 48 * 2**20,) * 2)
corpus = open_corpus(DataConfig(source=Source.files, path=sys.argv[1], ngram_lookup=[]))
print(len(corpus.tokens), corpus.text(77 * 2**20, 77 * 2**20 + 6).strip())
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells a process its memory")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{80 * 2**20} ")


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"", {}, "there is no text in data.path=.*: it is empty"),
        (b"short", {}, "data.context=17 must lie between 2 and 4, the tokens to train on but one"),
        (b"long enough " * 20, {"test": 0.99}, "data.val=0.02 and data.test=0.99 leave nothing of 240 bytes"),
        (b"long enough " * 20, {"val": 0}, "data.val=0 leaves no token to validate on"),
        (b"long enough " * 20, {"stride": 99}, "data.stride=99 must lie between 1 and data.context=17"),
        (b"long enough " * 20, {"tokenizer": TokenizerKind.file}, "needs data.tokenizer_path="),
        (b"long enough " * 20, {"tokenizer": TokenizerKind.bpe, "vocab_size": 7}, "must be at least 257"),
        (None, {}, "data.path=.* does not exist; give a text file or a folder"),
    ],
)
def test_text_that_cannot_be(tmp_path, content, changes, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Data(configured(path, **changes)).setup()


# downloads


@pytest.fixture
def server(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "book.txt").write_text(TEXT, encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www"))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_is_kept_if_its_checksum_is_right(server, tmp_path):
    config = DataConfig(source=Source.url, url=f"{server}/book.txt", sha256="0" * 64, ngram_lookup=[])
    with pytest.raises(ValueError, match=r"and not data\.sha256=000.*; it was not kept"):
        open_corpus(config)
    assert not list((tmp_path / "home").rglob("*.txt"))
    config.sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    assert open_corpus(config).text(0, 2) == TEXT[:1] + "\ufffd"  # ù is two bytes
    (tmp_path / "www" / "book.txt").unlink()
    assert open_corpus(config).text(0, 1) == "O"  # it is here now
    other = DataConfig(source=Source.url, url=f"{server}/other.txt", ngram_lookup=[])
    with pytest.raises(
        ValueError, match=r"cannot be downloaded .*404.*; put that file into .*/downloads/\w{16}, or say"
    ):
        open_corpus(other)
    (empty,) = (folder for folder in (tmp_path / "home" / "text" / "downloads").iterdir() if not any(folder.iterdir()))
    (empty / "other.txt").write_text("Found there.\n" * 5)
    assert open_corpus(other).text(0, 5) == "Found"


def test_files_of_one_name_from_two_addresses_are_two_files(server, tmp_path):
    (tmp_path / "www" / "b").mkdir()
    (tmp_path / "www" / "b" / "book.txt").write_text("Another book.\n" * 7)
    configs = [
        DataConfig(source=Source.url, url=f"{server}/{name}", ngram_lookup=[]) for name in ("book.txt", "b/book.txt")
    ]
    assert [open_corpus(config).text(0, 1) for config in configs + configs] == ["O", "A", "O", "A"]


def test_a_checksum_of_another_file(book):
    with pytest.raises(ValueError, match=r"book\.txt has the SHA-256 sum .*; give data\.sha256=null if it is meant"):
        open_corpus(DataConfig(source=Source.url, path=str(book), sha256="0" * 64, ngram_lookup=[]))


class Rows(list):
    """What the package datasets makes of a table."""

    column_names, _fingerprint = ["text", "title", "year"], "f1"


@pytest.fixture
def table(monkeypatch):
    rows = Rows({"text": "The sea.\n" * 7, "title": "A ship.\n" * 5, "year": year} for year in (1997, None))
    package = SimpleNamespace(load_dataset=lambda path, data_files: {"train": rows})
    monkeypatch.setitem(sys.modules, "datasets", package)
    return DataConfig(source=Source.datasets, path="mine", ngram_lookup=[])


def test_another_column_is_another_text(table):
    assert open_corpus(table).text(0, 7) == "The sea"
    table.column = "title"
    assert open_corpus(table).text(0, 6) == "A ship"


def test_a_column_without_text_is_named(table):
    table.column = "year"
    with pytest.raises(
        ValueError, match=r"mine has no text in column 'year' of row 0 of train, but 1997; give another"
    ):
        open_corpus(table)
    table.column = "words"
    with pytest.raises(ValueError, match=r"mine has no column 'words' in train; possible: \['text', 'title', 'year'\]"):
        open_corpus(table)


def test_a_path_needs_a_source_that_reads_it(book):
    with pytest.raises(ValueError, match=r"data\.path=.*book\.txt is not read by data=python_docs; say data=files"):
        open_corpus(DataConfig(path=str(book)))


# documents and low-rank adapters


@pytest.mark.parametrize(
    ("named", "val", "test"),
    [(5, [], []), (6, ["4.txt", "5.txt"], []), (7, ["4.txt", "5.txt"], ["5.txt", "6.txt"])],
)
def test_documents_are_listed_where_all_of_a_split_have_names(tmp_path, monkeypatch, named, val, test):
    monkeypatch.setattr(domains.text.corpus, "MAX_DOCUMENT_NAMES", named)
    folder = tmp_path / "folder"
    folder.mkdir()
    for n in range(7):
        (folder / f"{n}.txt").write_text(f"A few {n}ords.\n" * 5)
    data = Data(configured(folder, val=0.2, test=0.2))
    data.setup()
    listed = {}
    for split in ("val", "test"):
        begin, end = data.bounds[split]
        path = tmp_path / f"{split}.csv"
        write_documents(path, np.ones(end - begin), np.ones(end - begin), data, split)
        listed[split] = [line.partition(",")[0] for line in path.read_text().splitlines()[1:]] if path.is_file() else []
    assert listed == {"val": val, "test": test}


def test_packed_documents_do_not_see_each_other(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(60):
        (folder / f"{n:02}.txt").write_text("".join(rng.choice([*"abcdefg "], 7 + n % 5)))
    data = Data(configured(folder, packed=True))
    data.setup()
    torch.manual_seed(0)
    adapter = Adapter(
        ModelConfig(dim=16, depth=2, num_heads=2), PositionConfig(PositionKind.rotary), data.spec()
    ).eval()
    torch.nn.init.normal_(adapter.lm_head.weight)
    batch = data.batch("train", [3, 100, 211])
    assert batch["positions"].max() < 13
    before = adapter(batch)
    for row in range(3):
        own = batch["documents"][row]
        first = {name: tensor[row : row + 1, own == own[-1]] for name, tensor in batch.items() if tensor.dim() == 2}
        first["ngram_matches"] = batch["ngram_matches"][row : row + 1, own == own[-1]]
        assert 0 < first["tokens"].shape[1] < 17
        assert torch.allclose(adapter(first)[0], before[row, own == own[-1]], atol=1e-5)


def test_low_rank_adapters_alone_are_trained_and_merge_away(book):
    data = Data(configured(book))
    data.setup()
    torch.manual_seed(0)
    config = ModelConfig(dim=16, depth=2, num_heads=2, lora_rank=3)
    adapter = Adapter(config, PositionConfig(PositionKind.rotary), data.spec())
    torch.nn.init.normal_(adapter.lm_head.weight)
    trained = {name for name, p in adapter.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in adapter.named_parameters() if name.endswith((".lora_A", ".lora_B"))}
    batch = data.batch("train", range(5))
    before = adapter(batch).detach()
    optimizer = torch.optim.Adam([p for p in adapter.parameters() if p.requires_grad], 0.02)
    for _ in range(5):
        optimizer.zero_grad()
        mean_loss(adapter.loss(adapter(batch), batch)).backward()
        optimizer.step()
    after = adapter.eval()(batch)
    assert (after - before).abs().max() > 0.1
    merged = adapter.merged().eval()
    assert not any("lora" in name for name in merged.state_dict())
    assert torch.allclose(merged(batch), after, atol=1e-5)
    plain = Adapter(ModelConfig(dim=16, depth=2, num_heads=2), PositionConfig(PositionKind.rotary), data.spec())
    plain.load_state_dict(merged.state_dict())
    with pytest.raises(ValueError, match=r"model\.lora_rank=0 must be at least 1"):
        Adapter(ModelConfig(lora_rank=0), PositionConfig(PositionKind.rotary), data.spec())
