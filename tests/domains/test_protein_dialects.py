"""Files of protein as programs other than the PDB's write them: Amber, CHARMM, GROMACS, PyMOL, hh-suite, ColabFold.

What is left out, changed or guessed on the way is said.
"""

import gzip
import warnings

import numpy as np
import pytest

from domains.data_warnings import DataWarning
from domains.protein.alignment import parse_a3m
from domains.protein.chain import resolved_mask, to_letters
from domains.protein.config import DataConfig, Source
from domains.protein.files import read_chains
from domains.protein.residues import STANDARD
from domains.protein.sources import load_splits, read_folder

FIRST, SECOND = "MKTAYIAKHRQISFVKSHFSRQL", "QVEILGLREELQRSFHSKV"
NAME = {letter: code for code, letter in STANDARD.items()}
STEP = 3.73  # Å; C and the next N are 1.33 Å apart
ATOMS = {"N": (0.0, 0.0, 0.0), "CA": (1.2, 0.8, 0.0), "C": (2.4, 0.0, 0.0), "CB": (1.2, 1.7, 1.2)}
SHARED = "chains that share a name, told apart by TER or by where numbers begin again: "


def chain(
    letters, name="A", first=1, *, z=0.0, skip=0, codes=None, het=(), numbers=None, only=ATOMS, segment=""
) -> list:
    """Lines of a PDB file; `skip` leaves room for residues that were not seen."""
    lines = []
    for n, letter in enumerate(letters):
        code, number = (codes or {}).get(n, NAME[letter]), numbers[n] if numbers else f"{first + n:4d}"
        for atom in only:
            if (atom, code) != ("CB", "GLY"):
                x, y, dz = ATOMS[atom]
                xyz = f"{x + STEP * (n + skip):8.3f}{y:8.3f}{z + dz:8.3f}"
                record = "HETATM" if n in het else "ATOM"
                lines.append(
                    f"{record:6}{len(lines):5d}  {atom:3} {code:>3}".ljust(20)
                    + f"{'' if len(code) == 4 else ' '}{name}{number:4} ".ljust(6 + (len(code) < 4))
                    + f"   {xyz}  1.00  0.00      {segment:4}"
                )
    return lines


def read(tmp_path, lines, name="x.pdb"):
    """The chains of a file with these lines, as {name: letters}, and what was said about it."""
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        chains = read_chains(path)
    return {c.name: to_letters(c.sequence) for c in chains}, [str(w.message).removeprefix(f"{path}: ") for w in told]


MSE_LAST = chain(FIRST, codes={9: "MSE"}, het={9})
MSE_LAST = [line for line in MSE_LAST if "MSE" not in line], [line for line in MSE_LAST if "MSE" in line]


@pytest.mark.parametrize(
    ("lines", "names", "said"),
    [
        ([*chain(FIRST, " "), "TER", *chain(SECOND, " ", 24, z=30)], ["x", "x_2"], [f"{SHARED}1 (x_2)"]),
        (chain(FIRST, " ") + chain(SECOND, " ", z=30), ["x", "x_2"], [f"{SHARED}1 (x_2)"]),
        (chain(FIRST, " ", 5) + chain(SECOND, " ", 2, z=30), ["x", "x_2"], [f"{SHARED}1 (x_2)"]),
        ([*chain(FIRST), "TER", *chain(SECOND, z=30), "TER"], ["x_A", "x_A_2"], [f"{SHARED}1 (x_A_2)"]),
        (chain(FIRST, " ", segment="PROA") + chain(SECOND, " ", 24, segment="PROB"), ["x_PROA", "x_PROB"], []),
        (chain(FIRST, "P", segment="A1") + chain(SECOND, "P", segment="B1"), ["x_P_A1", "x_P_B1"], []),
    ],
)
def test_chains_that_share_an_id_are_told_apart(tmp_path, lines, names, said):
    assert read(tmp_path, lines) == (dict(zip(names, (FIRST, SECOND), strict=True)), said)


@pytest.mark.parametrize(
    "lines",
    [
        chain(FIRST, first=-5),
        chain(FIRST, numbers=[f"{n:4d}" for n in (*range(101, 111), *range(1002, 1012), *range(111, 114))]),  # a fusion
        chain(FIRST, numbers=[f"{n:4d}" for n in (*range(9990, 10_000), *range(13))]),
        [f"ATOM{100_000 + n:7d}{line[11:]}" for n, line in enumerate(chain(FIRST))],
        [*chain(FIRST), "TER", *chain("G", first=201, z=50, codes={0: "HOH"}, het={0})],
    ],
)
def test_what_is_no_other_chain(tmp_path, lines):
    """Negative numbers, those that fall where residues are bound, or begin again after 9999; serials of six digits."""
    assert read(tmp_path, lines) == ({"x_A": FIRST}, [])


def test_insertion_codes_in_any_order_are_no_other_chain(tmp_path):
    for insertions in ("ABC ", " CBA"):
        lines = chain(FIRST, numbers=[f"{n:4d}" for n in (1, 2, 3, 3, 3, 3, *range(4, 21))])
        for at in range(2 * len(ATOMS), 6 * len(ATOMS)):
            lines[at] = lines[at][:26] + insertions[at // len(ATOMS) - 2] + lines[at][27:]
        assert read(tmp_path, lines) == ({"x_A": FIRST}, [])


@pytest.mark.parametrize("between", [["TER"], []])
def test_modified_residues_behind_the_chain_are_put_where_they_are_bound(tmp_path, between):
    chains, said = read(tmp_path, MSE_LAST[0] + between + MSE_LAST[1])
    assert chains == {"x_A": FIRST[:9] + "M" + FIRST[10:]}
    assert said == ["modified residues, read as the amino acid that they are made from: 1 (MSE)"]


def test_ids_of_two_letters(tmp_path):
    lines = [line[:20] + "X" + line[21:] for line in chain(FIRST) + chain(SECOND, "B", z=30)]
    assert read(tmp_path, lines) == ({"x_XA": FIRST, "x_XB": SECOND}, [])


@pytest.mark.parametrize(
    ("between", "count"), [(["END"], 2), (["ENDMDL"], 2), (["END", "HEADER    OTHER"], 2), (["MODEL        2"], 2)]
)
def test_models_and_entries_behind_the_first_are_counted(tmp_path, between, count):
    lines = chain(FIRST) + between + chain(SECOND) + between + chain(SECOND) + ["END"]
    assert read(tmp_path, lines) == (
        {"x_A": FIRST},
        [f"models or entries behind the first, left out: {count} (2 x)"],
    )


def test_seqres_of_chains_that_share_an_id(tmp_path):
    """It is that of each, or of all in a row; then numbers place the residues."""

    def seqres(letters):
        return [
            f"SEQRES {n:3d} A {len(letters):4d}  " + " ".join(NAME[a] for a in letters[n : n + 13])
            for n in range(0, len(letters), 13)
        ]

    twice = [*chain(FIRST), "TER", *chain(FIRST, z=30)]
    assert read(tmp_path, seqres("GS" + FIRST) + twice)[0] == {"x_A": "GS" + FIRST, "x_A_2": "GS" + FIRST}
    two = [*chain(FIRST), "TER", *chain(SECOND, z=30)]
    assert read(tmp_path, seqres(FIRST + SECOND) + two)[0] == {"x_A": FIRST, "x_A_2": SECOND}


def test_names_of_force_fields(tmp_path):
    """Amber's, CHARMM's, and those of GROMACS in four columns; with Amber's prefixes of the ends of a chain."""
    names = "NMET HID HIE HIP HSD HSP HISD HISE HISH LYN LYSH ASH ASPH GLH GLUH CYX CYM CYS2 ARN TYM CHIE"
    codes = dict(enumerate(names.split()))
    assert read(tmp_path, chain("A" * 21, codes=codes)) == ({"x_A": "MHHHHHHHHKKDDEECCCRYH"}, [])


@pytest.mark.parametrize(
    ("codes", "letters", "said"),
    [
        ({1: "HSE", 2: "HSD"}, "AHHAA", ["histidine, for HSD or HSP is there: 1 (HSE)"]),
        ({1: "HSE"}, "ASAAA", ["homoserine, for no HSD or HSP is there: 1 (HSE)"]),
        ({0: "ACE", 4: "NME"}, "AAA", []),
        ({1: "UNK"}, "AXAAA", []),
    ],
)
def test_names_that_need_a_guess(tmp_path, codes, letters, said):
    chains, told = read(tmp_path, chain("AAAAA", codes=codes))
    assert chains == {"x_A": letters}
    assert [line.removeprefix("residues without side chain, guessed to be ") for line in told] == said


@pytest.mark.parametrize(("atom", "letter"), [("ND1", "H"), ("OD", "S")])
def test_the_side_chain_says_what_hse_is(tmp_path, atom, letter):
    lines = chain("AAA", codes={1: "HSE"})
    lines.append(lines[4][:12] + f" {atom:3}" + lines[4][16:])
    assert read(tmp_path, lines) == ({"x_A": f"A{letter}A"}, [])


def test_hybrid_36(tmp_path):
    """A000 follows 9999, a000 follows ZZZZ (iotbx.pdb.hybrid_36); a gap counts across."""
    path = tmp_path / "x.pdb"
    for numbers, expected in (
        ("9998 9999 A000 A001", "9998 9999 10000 10001"),
        ("ZZZY ZZZZ a000 a001", "1223054 1223055 1223056 1223057"),
    ):
        path.write_text("\n".join(chain("MKTA", numbers=numbers.split())))
        (one,) = read_chains(path)
        assert one.residue_numbers == tuple(expected.split())
    path.write_text("\n".join(chain("MK", numbers=["9999", "A000"]) + chain("TA", numbers=["A003", "A004"], skip=4)))
    assert to_letters(read_chains(path)[0].sequence) == "MKXXTA"
    path.write_text("\n".join(chain("MK", numbers=["9999", "A!00"])))
    with pytest.raises(ValueError, match="line 5 is no line of an atom"):
        read_chains(path)


@pytest.mark.parametrize("only", [("N", "CA", "C"), ("CA",)])
def test_models_without_cb(tmp_path, only):
    path = tmp_path / "x.pdb"
    path.write_text("\n".join(chain("MGT", only=only)))
    with pytest.warns(DataWarning, match=r"chains without any Cβ, .*: 1 \(x_A\)"):
        (one,) = read_chains(path)
    assert resolved_mask(one).all()
    ca = np.array([[STEP * n + 1.2, 0.8, 0.0] for n in range(3)])
    apart = np.linalg.norm(one.cb - ca, axis=1)
    length = 1.43 if len(only) == 3 else 0.0  # from Cα to Cβ, in Å; 1.5 with the angles of a real backbone
    assert np.allclose(apart, [length, 0.0, length], atol=0.01)


FAMILY = f">q\n{FIRST}\n>h1\n{FIRST[:9]}aa{FIRST[9:]}\n>h2\n{FIRST[:5]}---{FIRST[8:]}\n"
ENCODINGS = {
    "mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "latin-1": lambda text: text.encode("latin-1"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["fasta", "a3m", "sto", "pdb", "cif"])
def test_text_in_any_encoding(tmp_path, encoding, kind):
    """Packed, too. That it is Latin-1 is a guess, and said."""
    tags = [
        "label_atom_id",
        "label_alt_id",
        "label_comp_id",
        "label_asym_id",
        "label_seq_id",
        "Cartn_x",
        "Cartn_y",
        "Cartn_z",
    ]
    atoms = "".join(f"CB . {NAME[letter]} A {n + 1} {n} 0 0\n" for n, letter in enumerate(FIRST))
    cif = "data_x\n_citation_author.name Müller\nloop_\n" + "".join(f"_atom_site.{t}\n" for t in tags) + atoms
    text = {
        "fasta": f">q Müller\n{FIRST}\n",
        "a3m": FAMILY.replace(">q", ">q Müller"),
        "sto": f"# STOCKHOLM 1.0\n#=GF AU Müller\nq {FIRST}\nr {FIRST}\n//\n",
        "pdb": "\n".join([*chain(FIRST), "REMARK Müller", "END"]),
        "cif": cif,
    }[kind]
    for path, packed in ((tmp_path / f"x.{kind}", bytes), (tmp_path / f"x.{kind}.gz", gzip.compress)):
        path.write_bytes(packed(ENCODINGS[encoding](text)))
        if encoding == "latin-1":
            with pytest.warns(DataWarning, match=r"files that are no UTF-8, read as Latin-1: 1 \(x\)"):
                (one,) = read_chains(path)
        else:
            (one,) = read_chains(path)
        assert to_letters(one.sequence) == FIRST


def a3m(tmp_path, text):
    path = tmp_path / "x.a3m"
    path.write_text(text)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        chains = read_chains(path)
    return (
        [(c.name, to_letters(c.sequence), len(c.alignment or ())) for c in chains],
        [str(w.message).removeprefix(f"{path}: ") for w in told],
    )


KINDS = ("ss_pred", "ss_conf", "ss_dssp", "sa_dssp", "aa_dssp", "aa_pred")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("".join(f">{kind} of a program\n{'9-C'[n % 3] * 23}\n" for n, kind in enumerate(KINDS)) + FAMILY, []),
        (f">q_consensus\n{FIRST}\n{FAMILY}", ["consensus sequences, left out: 1 (q_consensus)"]),
        (f"# a comment\n#3\t1\n{FAMILY}\0", []),
        (f"{FAMILY}\0>q2\n{SECOND}\n\0", ["alignments behind a zero byte, left out: 1 (x)"]),
        (FAMILY.replace(FIRST + "\n", FIRST + "*\n", 1), ["stops (*) at the end of a query, left out: 1 (q)"]),
    ],
)
def test_what_stands_beside_the_sequences_of_an_a3m_file(tmp_path, text, said):
    assert a3m(tmp_path, text) == ([("x", FIRST, 3)], said)


def test_stops_of_hits_are_gaps(tmp_path):
    text = ">q\nMKTAY\n>a\nMK*AY\n>b\nMKTAY*\n>c\nMKT-*\n"
    with pytest.warns(DataWarning, match=r"stops \(\*\) of aligned sequences, .*: 3 \(a, b, c\)"):
        family = parse_a3m(text)
    with_gaps = parse_a3m(text.replace("Y*", "Y").replace("*", "-"))
    assert np.array_equal(family.rows, with_gaps.rows)
    with pytest.raises(ValueError, match=r"'\*' in sequence 'q' is no amino acid"):
        parse_a3m(">q\nM*K\n")


def test_a_query_with_gaps_beside_its_consensus(tmp_path):
    """As in hh-suite's databases: columns that it does not have are insertions of the others."""
    text = ">c_consensus\nMKTAY\n>q\nMK--Y\n>h\nMkKTA-\n"
    (one,), _ = a3m(tmp_path, text)
    assert one == ("x", "MKY", 2)
    with pytest.warns(DataWarning, match="consensus|columns in which the query has a gap, read as insertions: 2"):
        family = parse_a3m(text)
    assert family.insertions.tolist() == [[0, 0, 0], [0, 1, 2]]


COMPLEX = (
    "complexes, of which each chain that differs is read on its own: contacts between chains are not predicted: 1 (x)"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            f"#23,19\t1,1\n>101\t102\n{FIRST}{SECOND}\n>h\n{FIRST}aa{'-' * 19}\n",
            [("x_A", FIRST, 2), ("x_B", SECOND, 1)],
        ),
        (f"#23,19\t1,2\n>101\t102\n{FIRST}{SECOND}\n>h\n{'-' * 23}{SECOND}\n", [("x_A", FIRST, 1), ("x_B", SECOND, 2)]),
        (f"#23\t2\n{FAMILY}", [("x", FIRST, 3)]),
        (f"#23,23\t1,1\n>1\t2\n{FIRST}{FIRST}\n", [("x", FIRST, 1)]),
        (f">q\n{FIRST}:{SECOND}\n>h\n{FIRST}:{'-' * 19}\n", [("x_A", FIRST, 2), ("x_B", SECOND, 1)]),
        (f">q\n{FIRST}/{SECOND}\n>h\n{FIRST}{SECOND}\n", [("x_A", FIRST, 2), ("x_B", SECOND, 2)]),
    ],
)
def test_alignments_of_complexes_are_those_of_their_chains(tmp_path, text, found):
    assert a3m(tmp_path, text) == (found, [COMPLEX])
    if len(found) > 1:
        with pytest.raises(ValueError, match="it is an alignment of 2 chains"), pytest.warns(DataWarning):
            parse_a3m(text)


def test_lengths_that_are_not_those_of_the_query(tmp_path):
    with pytest.raises(ValueError, match=r"tells of chains of 23,40 residues, and its query has 42"):
        a3m(tmp_path, f"#23,40\t1,1\n>101\t102\n{FIRST}{SECOND}\n")
    with pytest.raises(ValueError, match="sequence 'h' has 43 aligned residues and gaps, and the query has 42"):
        a3m(tmp_path, f"#23,19\t1,1\n>101\t102\n{FIRST}{SECOND}\n>h\n{FIRST}{SECOND}A\n")


@pytest.mark.parametrize(
    ("text", "found", "said"),
    [
        (f"; a comment\n>a\n;another\n{FIRST[:7]} {FIRST[7:].lower()}\n", {"a": FIRST}, []),
        (
            f">a\n   1 {FIRST[:10]} 10\n  11 {FIRST[10:]}\n",
            {"a": FIRST},
            ["numbers beside sequences, left out: 3 (3 a)"],
        ),
        (
            f">\n{FIRST}\n> b\n{SECOND}\n>\n{SECOND}\n",
            {"chain": FIRST, "b": SECOND, "chain_2": SECOND},
            ["chains of a name that another has, numbered: 1 (chain_2)"],
        ),
        (f">x\n{FIRST}:{SECOND}/{FIRST}\n", {"x_A": FIRST, "x_B": SECOND}, [COMPLEX]),
        (
            f">P1;CRAB\nALPHA CRYSTALLIN\n{FIRST}*\n",
            {"CRAB": FIRST},
            ["stops (*) at the end of sequences, left out: 1 (CRAB)"],
        ),
        (f">a\n{FIRST}\n\0>b\n{SECOND}\n\0", {"a": FIRST, "b": SECOND}, []),
        (">a\nMUUOT\n", {"a": "MXXXT"}, ["ambiguous residues, read as X: 3 (2 U, O)"]),
        (
            ">a\n" + "ACGT" * 6,
            {"a": "ACGT" * 6},
            ["sequences of nothing but A, C, G, T, U and N, read as protein: are they nucleic acids?: 1 (a)"],
        ),
    ],
)
def test_fasta_as_it_is_written(tmp_path, text, found, said):
    assert read(tmp_path, [text.rstrip("\n")], "x.fasta") == (found, said)


def test_a_gap_in_fasta_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'-' at position 2 is no amino acid; .* an alignment, with gaps, must be"):
        read(tmp_path, [">a\nM-K"], "x.fasta")


def test_links_in_folders_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "other").mkdir()
    for name, letters in (("other/a.pdb", FIRST), ("b.pdb", FIRST[::-1])):
        (tmp_path / name).write_text("\n".join(chain(letters)))
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "other")
    (tmp_path / "data" / "file.pdb").symlink_to(tmp_path / "b.pdb")
    assert sorted(one.name for one in read_folder(tmp_path / "data")) == ["a_A", "file_A"]


def test_an_alignment_of_another_sequence_is_refused(tmp_path, monkeypatch):
    """Packed, and behind a link; one residue may differ, and is told of."""
    monkeypatch.setattr("domains.protein.clusters.which", lambda program: None)
    (tmp_path / "al").mkdir()
    for n in range(17):
        letters = FIRST[n:] + FIRST[:n]
        (tmp_path / f"{n}.pdb").write_text("\n".join(chain(letters)))
        (tmp_path / f"{n}_A.a3m.gz").write_bytes(
            gzip.compress(f">q\n{'W' + letters[1:] if n == 3 else letters}\n".encode())
        )
        (tmp_path / "al" / f"{n}_A.a3m.gz").symlink_to(tmp_path / f"{n}_A.a3m.gz")
    config = DataConfig(source=Source.structures, path=str(tmp_path), alignments=str(tmp_path / "al"))
    config.val_share = config.test_share = 0.25
    with pytest.warns(DataWarning) as told:
        splits = load_splits(config)
    assert sum(one.alignment is not None for part in splits.values() for one in part) == 17
    assert any("whose query differs from the chain in some residues: 1 (3_A)" in str(w.message) for w in told)
    (tmp_path / "3_A.a3m.gz").write_bytes(gzip.compress(f">q\n{FIRST[::-1]}\n".encode()))
    warnings.simplefilter("ignore", DataWarning)  # until the end of the test
    with pytest.raises(ValueError, match=r"3_A.a3m in .* is not one of that chain: \d+ of 23 residues differ"):
        load_splits(config)
