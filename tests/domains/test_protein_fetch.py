"""attend fetch, with the server of the Protein Data Bank played by a function."""

import gzip
import sys
from pathlib import Path
from urllib.error import URLError

import pytest

from experiments.compose import compose
from experiments.fetch import fetch, run

CIF = """data_1ABC
loop_
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_seq_id
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
CA . ALA A 1 0.0 0.0 0.0
CB . ALA A 1 1.0 1.0 0.0
CA . TRP A 2 3.8 0.0 0.0
CB . TRP A 2 4.8 1.0 0.0
#
"""


@pytest.fixture
def server(monkeypatch):
    """What was asked for; it has any entry that begins with 1, breaks off for 2, and none else."""
    asked = []

    def urlretrieve(url: str, filename: str) -> None:
        asked.append(url)
        name = url.rpartition("/")[2]
        if not name.startswith(("1", "2")):
            raise URLError("no route to host")
        packed = gzip.compress(CIF.encode() * (99 if name.startswith("2") else 1))
        Path(filename).write_bytes(packed[: 60 if name.startswith("2") else None])

    monkeypatch.setattr(sys.modules["Bio.PDB.PDBList"], "urlretrieve", urlretrieve)
    return asked


def test_entries_are_fetched_once(server, tmp_path):
    assert fetch(["1ABC", "1xyz"], tmp_path) == [tmp_path / "1abc.cif", tmp_path / "1xyz.cif"]
    assert (tmp_path / "1abc.cif").read_text() == CIF
    assert [url.rpartition("/")[2] for url in server] == ["1abc.cif.gz", "1xyz.cif.gz"]
    fetch(["1abc"], tmp_path)
    assert len(server) == 2


@pytest.mark.parametrize("entry", ["9zzz", "2cut"])
def test_what_cannot_be_had_is_one_clear_error(server, tmp_path, entry, capsys):
    with pytest.raises(
        ValueError, match=f"{entry} cannot be fetched .*; check the id and the network, or put"
    ) as error:
        fetch([entry], tmp_path)
    assert "\n" not in str(error.value)
    assert ("no route to host" in str(error.value)) == (entry == "9zzz")
    assert not list(tmp_path.glob("*.cif"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrong", ["ubiquitin", "../1", "1ab", "abcd", "12345"])
def test_what_is_no_id_is_refused_before_anything_is_fetched(server, tmp_path, wrong):
    with pytest.raises(ValueError, match=r"are no ids of the PDB; they look like ids=\[1ubq,4hhb\]"):
        fetch(["1abc", wrong], tmp_path)
    assert server == []
    with pytest.raises(ValueError, match="are no ids"):
        fetch([], tmp_path)


def test_the_command_says_what_it_got(server, tmp_path, capsys):
    run(compose("fetch", ["ids=[1abc]", f"output={tmp_path}"]))
    said = capsys.readouterr().out
    assert f"wrote {tmp_path}/1abc.cif: 1abc_A with 2 residues" in said
    assert f"data=structures data.path={tmp_path}" in said
    with pytest.raises(ValueError, match="ids is needed: give ids="):
        compose("fetch", [])
