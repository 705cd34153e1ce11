"""Text files of any origin: encodings, what is none, what repeats another, and tokenizers that change the text."""

import gzip
import lzma
import warnings
from pathlib import Path
from typing import Any

import pytest

from domains.data_warnings import DataWarning, record_data_warnings
from domains.text.config import DataConfig, Source, TokenizerKind
from domains.text.corpus import open_corpus
from domains.text.predict import read_prompt
from domains.text.tokenizers import train_bpe

TEXT = "Où est le garçon ? 北京は大きい。 The cat sat on the mat, and the dog on the log.\n" * 41


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEND_DATA", str(tmp_path / "home"))


def configured(path: Path, **changes) -> DataConfig:
    return DataConfig(source=Source.files, path=str(path), ngram_lookup=[], context=17, **changes)


def test_broken_utf8_is_counted_and_named(tmp_path):
    path = tmp_path / "broken.txt"
    path.write_bytes("é".encode() * 11 + b"caf\xe9 " * 7 + b"plain text " * 50)
    for _ in range(2):  # it is said again where the tokens are made already
        with pytest.warns(DataWarning, match=r"^7 bytes that are no UTF-8 were read as .: broken\.txt \(7\)$"):
            open_corpus(configured(path))
    with record_data_warnings(show=False):
        assert open_corpus(configured(path)).text(22, 28) == "caf\ufffd"
    with pytest.warns(DataWarning, match="^7 bytes of .* were read as .$"):
        assert read_prompt(str(path)).count("\ufffd") == 7


CAFE = "Où est le café ?\n" * 31
ENCODED = {
    "utf-8-sig": None,
    "utf-16": None,
    "utf-16-le with a mark": None,
    "utf-32": None,
    "latin-1": "1 files that are no UTF-8 were read as Latin-1 (first: cafe.txt)",
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_text_in_other_encodings_is_the_same_text(encoding, tmp_path, recwarn):
    path, said = tmp_path / "cafe.txt", ENCODED[encoding]
    mark = "\ufeff" if "mark" in encoding else ""
    path.write_bytes((mark + CAFE).encode(encoding.split()[0]))
    with record_data_warnings(show=False) as found:
        corpus = open_corpus(configured(path))
        assert read_prompt(str(path)) == CAFE
    assert corpus.text(0, len(corpus.tokens)) == CAFE
    assert found[:1] == ([said] if said else [])


def test_what_is_no_text_is_left_out_and_said(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "a.txt").write_text(CAFE, encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress(CAFE.encode(), mtime=1_700_000_000))
    (folder / "c.txt.xz").write_bytes(lzma.compress(CAFE.encode()))
    (folder / "d.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n")
    (folder / "e.parquet").write_bytes(b"PAR1abc")
    (folder / "f.bin").write_bytes(b"\0\1\2")
    (folder / "g.txt").write_bytes(CAFE.encode("utf-16-le"))
    (folder / "h.txt").write_bytes(b"")
    (folder / ".hidden").write_text("not read")
    (other / "z.txt").write_text("Linked.\n" * 9)
    (folder / "linked").symlink_to(other)
    (folder / "dead.txt").symlink_to(tmp_path / "nowhere.txt")
    with record_data_warnings(show=False) as found:
        corpus = open_corpus(configured(folder))
    assert corpus.document_names == ["a.txt", "linked/z.txt"]
    assert len(found) == 2
    assert found[0].endswith("1 leading nowhere (first: " + str(folder / "dead.txt") + ")")
    left = found[1]
    assert left.startswith(f"7 of 9 files in {folder} were left out: 2 packed, to be unpacked first (first: b.txt.gz)")
    for reason in ("1 PDF", "1 Parquet", "2 binary, or UTF-16 without", "1 empty (first: h.txt)"):
        assert reason in left
    for name in ("b.txt.gz", "d.pdf", "f.bin", "g.txt"):
        with pytest.raises(ValueError, match="is no text file: "):
            read_prompt(str(folder / name))
        with pytest.raises(ValueError, match=r"holds no text; give UTF-8 text.*; left out: 1 "):
            open_corpus(configured(folder / name))


def test_files_that_repeat_another_are_said(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in {"a": CAFE, "b": CAFE[::-1], "c": CAFE, "d": CAFE}.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.warns(DataWarning, match=r"^2 files say what another one does \(first: c, as a\): the test split may"):
        open_corpus(configured(folder))


def lossy(tmp_path: Path, normalizer: Any) -> Path:
    from tokenizers import Tokenizer

    pieces = Tokenizer.from_str(train_bpe([TEXT, TEXT.lower()], 307).definition)
    pieces.normalizer = normalizer
    pieces.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_that_changes_the_text_is_said(tmp_path):
    normalizers: Any = pytest.importorskip("tokenizers", reason="pip install -e '.[bpe]'").normalizers
    path = tmp_path / "book.txt"
    path.write_text("The cat sat.\nthe dog ran.\n" * 50)
    config = configured(
        path,
        tokenizer=TokenizerKind.file,
        tokenizer_path=str(lossy(tmp_path, normalizers.Lowercase())),
        val=0.2,
        test=0.3,
    )
    message = (
        r"does not give back 5\d of 10\d lines as they were \(first: 'The' is read as 'the'\); bits per byte are of"
    )
    for _ in range(2):
        with pytest.warns(DataWarning, match=message):
            assert sum(open_corpus(config).split_bytes.values()) == path.stat().st_size
    path.write_text("A ﬁne ﬂag.\n" * 50, encoding="utf-8")
    config.tokenizer_path = str(lossy(tmp_path, normalizers.NFKC()))
    with pytest.raises(
        ValueError, match=r"and the text has 750 \(first change: 'ﬁne' is read as 'fine'\): bits per byte"
    ):
        open_corpus(config)
    path.write_text("plain text, which it keeps.\n" * 50)
    with record_data_warnings(show=False) as found:
        open_corpus(config)
    assert found == []


def test_a_prompt_that_looks_like_a_path_is_said(tmp_path):
    with pytest.warns(DataWarning, match=r"^and/or names no file: it was read as the prompt itself$"):
        assert read_prompt("and/or") == "and/or"
    with pytest.warns(DataWarning, match="is a folder: it was read as the prompt itself"):
        assert read_prompt(str(tmp_path)) == str(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_prompt("one and/or the other") == "one and/or the other"
