"""Files below a folder, text of unknown encoding, and the lines that say what a reader left out."""

import pytest

from domains.data_warnings import DataWarning, record_data_warnings, warn_data, warn_left_out
from domains.files import decode_text, walk_files


def test_links_are_followed_and_circles_end(tmp_path):
    (tmp_path / "data" / "own").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "own" / "a.txt").write_text("a")
    (tmp_path / "elsewhere" / "deep" / "b.txt").write_text("b")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "own" / "c.txt").symlink_to(tmp_path / "elsewhere" / "deep" / "b.txt")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / ".hidden").mkdir()
    (tmp_path / "data" / ".hidden" / "d.txt").write_text("d")
    with pytest.warns(
        DataWarning, match="2 of 5 files and links .* 1 read already .*circle.* 1 leading nowhere .*dead"
    ):
        found = walk_files(tmp_path / "data")
    assert [str(path.relative_to(tmp_path / "data")) for path in found] == [
        "linked/deep/b.txt",
        "own/a.txt",
        "own/c.txt",
    ]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("Größe\nb".encode(), "utf-8"),
        ("Größe\r\nb".encode("utf-8-sig"), "utf-8-sig"),
        ("Größe\rb".encode("utf-16"), "utf-16"),
        ("Größe\nb".encode("utf-32"), "utf-32"),
        ("Größe\nb".encode("latin-1"), "latin-1"),
    ],
)
def test_text_is_read_in_its_encoding(data, encoding):
    assert decode_text(data) == ("Größe\nb", encoding)


def read_twice() -> list[str]:
    with record_data_warnings() as recorded:
        for _ in range(2):
            warn_left_out(41, {".xyz": ["a.xyz", "b.xyz"], "unreadable": ["c.png: cut short"], "empty": []}, "DIR")
        warn_data("3 chains were guessed")
    return recorded


def test_what_is_left_out_is_said_once_and_recorded():
    with pytest.warns(DataWarning) as shown:
        recorded = read_twice()
    assert recorded == [
        "3 of 41 files in DIR were left out: 2 .xyz (first: a.xyz), 1 unreadable (first: c.png: cut short)",
        "3 chains were guessed",
    ]
    assert [str(warning.message) for warning in shown] == recorded
