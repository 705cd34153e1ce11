"""Files of protein, in six formats: small ones, written here, with all that is hard about real ones.

The same chains are written as PDB, mmCIF and BinaryCIF, and must come out the same. What is expected was seen in
entries of the PDB: MSE in 1A8O, conformations in 1o1z, insertion codes in 1igy, DNA in 5ugo, models in 1l2y.
"""

import gzip
import lzma
import warnings
from pathlib import Path

import numpy as np
import pytest
from msgpack import packb

import domains.protein.files
from domains.data_warnings import DataWarning
from domains.protein.alignment import parse_a3m, parse_stockholm
from domains.protein.alphabet import AMINO_ACIDS, GAP, UNKNOWN
from domains.protein.binarycif import decode
from domains.protein.chain import resolved_mask, to_letters
from domains.protein.files import read_chains
from domains.protein.residues import STANDARD

BACKBONE = {"N": (-0.5, 1.4, 0.0), "CA": (0.0, 0.0, 0.0), "C": (1.5, 0.0, 0.0), "CB": (-0.5, -0.8, 1.2)}
STEP = 2.8  # Å; with it C and the next N are 1.6 Å apart, and bound


class Written:
    """Atoms to be written: (record, chain, number, insertion, residue, atom, altloc, occupancy, xyz, place, model)."""

    def __init__(self):
        self.atoms, self.seqres, self.kinds = [], {}, {}

    def residue(
        self, chain, number, code, place, *, insertion="", altloc="", occupancy=1.0, shift=0.0, model=1, het=False
    ):
        for atom, (x, y, z) in BACKBONE.items():
            if atom == "CB" and code == "GLY":
                continue
            xyz = (x + STEP * place, y + shift, z)
            record = "HETATM" if het else "ATOM"
            self.atoms.append((record, chain, number, insertion, code, atom, altloc, occupancy, xyz, place, model))

    def pdb(self, end="END\n") -> str:
        lines = ["HEADER    TEST"] if end else []
        for chain, codes in self.seqres.items():
            for start in range(0, len(codes), 13):
                row = " ".join(codes[start : start + 13])
                lines.append(f"SEQRES {start // 13 + 1:3d} {chain} {len(codes):4d}  {row}")
        models = sorted({atom[-1] for atom in self.atoms})
        for model in models:
            mine = [atom for atom in self.atoms if atom[-1] == model]
            lines += [f"MODEL     {model:4d}"] if len(models) > 1 else []
            for n, (record, chain, number, insertion, code, atom, altloc, occupancy, xyz, _, _) in enumerate(mine):
                where = "".join(f"{value:8.3f}" for value in xyz)
                lines.append(
                    f"{record:6}{n + 1:5d}  {atom:3}{altloc or ' '}{code:>3} {chain}{number:4d}{insertion or ' '}   "
                    f"{where}{occupancy:6.2f}  0.00"
                )
                if n + 1 == len(mine) or mine[n + 1][1] != chain:
                    lines.append(f"TER   {n + 2:5d}      {code:>3} {chain}{number:4d}")
            lines += ["ENDMDL"] if len(models) > 1 else []
        return "\n".join(lines) + "\n" + end

    def tables(self) -> dict[str, dict[str, list]]:
        """As mmCIF has them: label_asym_id differs from the authors' name of a chain, as it does in the PDB."""
        label = {chain: chr(ord("Q") + n) for n, chain in enumerate(dict.fromkeys(atom[1] for atom in self.atoms))}
        columns = ["group_PDB", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_seq_id"]
        columns += ["pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "auth_seq_id", "auth_asym_id"]
        columns += ["pdbx_PDB_model_num"]
        rows = [
            (
                r,
                atom,
                altloc or ".",
                code,
                label[chain],
                place + 1,
                insertion or "?",
                *xyz,
                occupancy,
                number,
                chain,
                model,
            )
            for r, chain, number, insertion, code, atom, altloc, occupancy, xyz, place, model in self.atoms
        ]
        scheme = [(label[chain], n + 1, code) for chain, codes in self.seqres.items() for n, code in enumerate(codes)]
        return {
            "_atom_site": dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)),
            "_pdbx_poly_seq_scheme": dict(
                zip(("asym_id", "seq_id", "mon_id"), map(list, zip(*scheme, strict=True)), strict=True)
            )
            if scheme
            else {},
        }

    def cif(self) -> str:
        lines = ["data_TEST"]
        for category, columns in self.tables().items():
            if columns:
                lines += ["#", "loop_", *(f"{category}.{tag}" for tag in columns)]
                lines += [" ".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        return "\n".join(lines) + "\n#\n"

    def bcif(self) -> bytes:
        categories = [
            {
                "name": category,
                "rowCount": len(next(iter(columns.values()))),
                "columns": [packed_column(tag, values) for tag, values in columns.items()],
            }
            for category, columns in self.tables().items()
            if columns
        ]
        blocks = [{"header": "TEST", "categories": categories}]
        return packb({"version": "0.3.0", "encoder": "test", "dataBlocks": blocks})  # pyright: ignore[reportReturnType]


def raw(values, kind: int, dtype: str) -> dict:
    return {"data": np.array(values, dtype).tobytes(), "encoding": [{"kind": "ByteArray", "type": kind}]}


def packed_column(tag: str, values: list) -> dict:
    """Numbers as they are; strings as the distinct ones and which; what is left out by a mask."""
    hidden = [(".", "?").index(value) + 1 if value in (".", "?") else 0 for value in values]
    mask = raw(hidden, 4, "<u1") if any(hidden) else None
    if isinstance(values[0], float):
        return {"name": tag, "data": raw(values, 33, "<f8"), "mask": mask}
    if isinstance(values[0], int):
        return {"name": tag, "data": raw(values, 3, "<i4"), "mask": mask}
    shown = [v for v, h in zip(values, hidden, strict=True) if not h]
    distinct = list(dict.fromkeys(shown))  # none at all in the column of insertions of most entries
    which = [-1 if h else distinct.index(v) for v, h in zip(values, hidden, strict=True)]
    offsets = np.r_[0, np.cumsum([len(v) for v in distinct])] if distinct else [0]
    strings = {
        "kind": "StringArray",
        "dataEncoding": [{"kind": "ByteArray", "type": 3}],
        "stringData": "".join(distinct),
        "offsetEncoding": [{"kind": "ByteArray", "type": 3}],
        "offsets": np.array(offsets, "<i4").tobytes(),
    }
    return {"name": tag, "data": {"data": np.array(which, "<i4").tobytes(), "encoding": [strings]}, "mask": mask}


FORMATS = {"pdb": lambda w: w.pdb().encode(), "cif": lambda w: w.cif().encode(), "bcif": lambda w: w.bcif()}


@pytest.fixture(params=FORMATS)
def read(request, tmp_path):
    """read(written) -> chains, by way of each format."""

    def chains(written: Written):
        path = tmp_path / f"1abc.{request.param}"
        path.write_bytes(FORMATS[request.param](written))
        return read_chains(path)

    return chains


def chain_of(codes: str, chain: str = "A", first: int = 1, gone: tuple[int, ...] = ()) -> Written:
    """A chain of these residues, of which those at `gone` were not seen."""
    written = Written()
    written.seqres[chain] = codes.split()
    for place, code in enumerate(codes.split()):
        if place not in gone:
            written.residue(chain, first + place, code, place)
    return written


def test_a_chain_has_its_sequence_its_cb_and_its_numbers(read):
    (chain,) = read(chain_of("MET GLY LYS TRP ALA", "B", first=151))
    assert (chain.name, to_letters(chain.sequence)) == ("1abc_B", "MGKWA")
    assert chain.residue_numbers == ("151", "152", "153", "154", "155")
    expected = [(STEP * n + (0 if n == 1 else -0.5), 0 if n == 1 else -0.8, 0 if n == 1 else 1.2) for n in range(5)]
    assert np.allclose(chain.cb, expected, atol=2e-3)  # Cα of the glycine


def test_residues_that_were_not_seen_count(read):
    """|i - j| is the separation in SEQRES; what was not seen has no coordinates."""
    (chain,) = read(chain_of("MET GLY SER SER GLY LYS TRP ALA ASP", first=-1, gone=(0, 3, 4, 8)))
    assert to_letters(chain.sequence) == "MGSSGKWAD"
    assert resolved_mask(chain).tolist() == [False, True, True, False, False, True, True, True, False]
    assert chain.residue_numbers == ("", "0", "1", "", "", "4", "5", "6", "")


def test_numbers_say_which_of_equal_residues_was_seen(read):
    """GSGSGS with one GS missing: SEQRES alone cannot say which."""
    for gone in ((2, 3), (4, 5)):
        (chain,) = read(chain_of("TRP SER GLY SER GLY SER GLY LYS", first=10, gone=gone))
        assert tuple(np.flatnonzero(~resolved_mask(chain))) == gone


def test_modified_residues_are_those_they_were_made_of(read):
    """By atoms called ATOM or HETATM: files of one entry differ in that. Others are unknown, in their place."""
    written = Written()
    written.seqres["A"] = ["GLY", "MSE", "SEP", "XYZ", "ALA"]
    for place, (code, het) in enumerate([("GLY", False), ("MSE", True), ("SEP", False), ("XYZ", True), ("ALA", False)]):
        written.residue("A", 151 + place, code, place, het=het)
    with pytest.warns(DataWarning) as told:
        (chain,) = read(written)
    assert [str(w.message).split(": ", 1)[1] for w in told] == [
        "modified residues, read as the amino acid that they are made from: 2 (MSE, SEP)",
        "residues of unknown name, read as X: 1 (XYZ)",
    ]
    assert to_letters(chain.sequence) == "GMSXA"
    assert resolved_mask(chain).all()


def test_one_conformation_the_likeliest_and_the_first_of_equal_ones(read):
    written = Written()
    written.seqres["A"] = ["ALA", "SER", "THR", "VAL"]
    written.residue("A", 1, "ALA", 0)
    for place, code, shares in ((1, "SER", (0.3, 0.7)), (2, "THR", (0.5, 0.5))):
        written.residue("A", 1 + place, code, place, altloc="B", occupancy=shares[1], shift=0.3)
        written.residue("A", 1 + place, code, place, altloc="A", occupancy=shares[0])
    written.residue("A", 4, "VAL", 3)
    (chain,) = read(written)
    assert np.allclose(chain.cb[:, 1], [-0.8, -0.5, -0.8, -0.8], atol=2e-3)


def test_two_kinds_of_residue_in_one_place(read):
    """Microheterogeneity: the sequence follows what was seen most."""
    written = chain_of("ALA SER VAL", gone=(1,))
    written.atoms = written.atoms[:4]
    written.residue("A", 2, "SER", 1, altloc="A", occupancy=0.4)
    written.residue("A", 2, "THR", 1, altloc="B", occupancy=0.6, shift=0.3)
    written.residue("A", 3, "VAL", 2)
    (chain,) = read(written)
    assert to_letters(chain.sequence) == "ATV"
    assert chain.cb[1, 1] == pytest.approx(-0.5, abs=2e-3)


def test_insertion_codes_are_part_of_a_residues_name(read):
    written = Written()
    written.seqres["L"] = ["ALA", "SER", "THR", "VAL"]
    for place, (number, insertion) in enumerate([(27, ""), (27, "A"), (27, "B"), (28, "")]):
        written.residue("L", number, written.seqres["L"][place], place, insertion=insertion)
    (chain,) = read(written)
    assert to_letters(chain.sequence) == "ASTV"
    assert chain.residue_numbers == ("27", "27A", "27B", "28")


def test_the_first_model_alone(read):
    written = Written()
    written.seqres["A"] = ["ALA", "SER"]
    for model in (1, 2):
        for place, code in enumerate(written.seqres["A"]):
            written.residue("A", place + 1, code, place, model=model, shift=9.0 * (model - 1))
    with pytest.warns(DataWarning, match=r"models or .* behind the first, left out: 1 \(1abc\)"):
        (chain,) = read(written)
    assert np.allclose(chain.cb[:, 1], -0.8, atol=2e-3)


def test_a_missing_cb_is_missing(read):
    written = chain_of("ALA SER VAL")
    written.atoms = [atom for atom in written.atoms if atom[2:6:3] != (2, "CB")]
    (chain,) = read(written)
    assert resolved_mask(chain).tolist() == [True, False, True]


def test_chains_that_are_no_protein_are_left_out(read):
    written = chain_of("ALA SER VAL", "P")
    written.seqres["D"] = ["DA", "DC"]
    for place, code in enumerate(("DA", "DC")):
        written.atoms.append(("ATOM", "D", place + 1, "", code, "C", "", 1.0, (0.0, 0.0, 0.0), place, 1))
    assert [chain.name for chain in read(written)] == ["1abc_P"]
    written.atoms = [atom for atom in written.atoms if atom[1] == "D"]
    del written.seqres["P"]
    with pytest.raises(ValueError, match="it holds no protein chain"):
        read(written)


def test_water_and_ligands_are_no_residues_of_a_chain(tmp_path):
    text = chain_of("ALA SER VAL").pdb(end="")
    ligands = [  # after TER: calcium, water, and glycine on its own
        "HETATM   99 CA    CA A 201       1.000   2.000   3.000  1.00  0.00          CA",
        "HETATM  100  O   HOH A 202       1.000   2.000   3.000  1.00  0.00           O",
        "HETATM  101  N   GLY A 203       1.000   2.000   3.000  1.00  0.00           N",
        "HETATM  102  CA  GLY A 203       1.000   3.400   3.000  1.00  0.00           C",
    ]
    path = tmp_path / "x.pdb"
    path.write_text(text + "\n".join(ligands) + "\n")
    with pytest.warns(DataWarning, match=r"amino acids that are bound to no chain, left out: 1 \(GLY 203\)"):
        (chain,) = read_chains(path)
    assert to_letters(chain.sequence) == "ASV"
    path.write_text(text.replace("TER", "REMARK") + "\n".join(ligands[:2]) + "\n")  # some programs write no TER
    (chain,) = read_chains(path)
    assert to_letters(chain.sequence) == "ASV"


def test_without_seqres_numbers_that_jump_at_a_break_count(tmp_path):
    """As in chymotrypsin, numbers jump where nothing is missing: there the residues are bound."""
    written = chain_of("ALA SER THR VAL TRP LYS", gone=(2, 3))
    written.seqres.clear()
    path = tmp_path / "x.pdb"
    path.write_text(written.pdb())
    (chain,) = read_chains(path)
    assert to_letters(chain.sequence) == "ASXXWK"
    bound = Written()
    for place, (number, code) in enumerate([(1, "ALA"), (2, "SER"), (16, "THR"), (17, "VAL")]):
        bound.residue("A", number, code, place)
    path.write_text(bound.pdb())
    assert to_letters(read_chains(path)[0].sequence) == "ASTV"
    broken = Written()
    for place, (number, code) in enumerate([(1, "ALA"), (2, "SER"), (1002, "THR"), (1003, "VAL")]):
        broken.residue("A", number, code, place + 3 * (place > 1))
    path.write_text(broken.pdb())
    with pytest.warns(DataWarning, match=r"rise by more than 100, guessed to be one missing residue: 1 \(x_A\)"):
        assert to_letters(read_chains(path)[0].sequence) == "ASXTV"  # a fused domain, not 999 residues


def test_an_mmcif_file_without_its_own_numbers(tmp_path):
    """As programs other than the PDB's write them: no SEQRES, and label_seq_id left out."""
    written = chain_of("ALA SER THR VAL TRP LYS", "C", first=5, gone=(2, 3))
    written.seqres.clear()
    tables = written.tables
    for hide in (False, True):
        path = tmp_path / f"{hide}.cif"

        def changed(hide=hide):
            found = tables()
            if hide:
                found["_atom_site"]["label_seq_id"] = ["."] * len(written.atoms)
            return found

        written.tables = changed
        path.write_text(written.cif())
        (chain,) = read_chains(path)
        assert (chain.name, to_letters(chain.sequence)) == (f"{hide}_C", "ASXXWK")
        assert chain.residue_numbers == ("5", "6", "", "", "9", "10")


LETTERS_1, LETTERS_2 = "MKTAYIAKHRQISFVKSHFSRQL", "QVEILGLREELQRSFHSKV"
NAME = {letter: code for code, letter in STANDARD.items()}
CIF_TAGS = "group_PDB label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id Cartn_x Cartn_y Cartn_z "
CIF_TAGS += "auth_seq_id auth_asym_id pdbx_PDB_ins_code"


def table(
    letters, label="A", author="A", place=lambda n: n + 1, number=lambda n: n + 1, insertion=lambda n: "?", z=0.0
):
    """Rows of _atom_site."""
    return [
        ("ATOM", atom, ".", NAME[a], label, place(n), x + STEP * n, y, z + dz, number(n), author, insertion(n))
        for n, a in enumerate(letters)
        for atom, (x, y, dz) in BACKBONE.items()
        if (atom, a) != ("CB", "G")
    ]


def write_cif(path, *blocks) -> None:
    """As mmCIF or as BinaryCIF."""
    tags = CIF_TAGS.split()
    if path.suffix == ".cif":
        head = "loop_\n" + "".join(f"_atom_site.{tag}\n" for tag in tags)
        path.write_text(
            "".join(
                f"data_{n}\n{head}" + "\n".join(" ".join(map(str, r)) for r in b) + "\n#\n"
                for n, b in enumerate(blocks)
            )
        )
        return
    tables = [
        [packed_column(tag, [*values]) for tag, values in zip(tags, zip(*rows, strict=True), strict=True)]
        for rows in blocks
    ]
    categories = [[{"name": "_atom_site", "columns": columns}] for columns in tables]
    path.write_bytes(packb({"dataBlocks": [{"header": "x", "categories": category} for category in categories]}))


@pytest.fixture(params=["cif", "bcif"])
def read_cif(request, tmp_path):
    def chains(*blocks):
        path = tmp_path / f"x.{request.param}"
        write_cif(path, *blocks)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", DataWarning)
            found = read_chains(path)
        return {c.name: to_letters(c.sequence) for c in found}, [str(w.message).removeprefix(f"{path}: ") for w in told]

    return chains


@pytest.mark.parametrize(
    "options",
    [
        {"place": lambda n: 501 + n, "number": lambda n: 501 + n},
        {"place": lambda n: n - 7, "number": lambda n: n - 7},
        {"place": lambda n: ".", "number": lambda n: n + 5},
        {"place": lambda n: 1},
        {"label": ".", "place": lambda n: 101 + n},
        {
            "place": lambda n: max(3, n),
            "number": lambda n: max(3, n),
            "insertion": lambda n: "ABC"[n] if n < 3 else "?",
        },
    ],
)
def test_places_of_mmcif_that_are_none(read_cif, options):
    """PyMOL writes the authors' numbers in label_seq_id; nothing is unknown in front of them."""
    assert read_cif(table(LETTERS_1, **options)) == ({"x_A": LETTERS_1}, [])


def test_gaps_within_places_count(read_cif):
    found, said = read_cif([row for row in table(LETTERS_1, place=lambda n: n - 3) if row[5] not in (4, 5)])
    assert (found, said) == ({"x_A": LETTERS_1[:7] + "XX" + LETTERS_1[9:]}, [])
    found, said = read_cif([row for row in table(LETTERS_1, place=lambda n: n + 999 * (n > 7)) if row[5] != 7])
    assert found == {"x_A": LETTERS_1[:7] + "X" + LETTERS_1[8:]}
    assert said == ["breaks where numbers fall, or rise by more than 100, guessed to be one missing residue: 1 (x_A)"]


def test_mmcif_chains_without_names(read_cif):
    rows = table(LETTERS_1, ".", ".", lambda n: ".") + table(LETTERS_2, ".", ".", lambda n: ".", z=30)
    assert read_cif(rows) == (
        {"x": LETTERS_1, "x_2": LETTERS_2},
        ["chains that share a name, told apart by TER or by where numbers begin again: 1 (x_2)"],
    )


def test_the_first_block_with_atoms(read_cif):
    assert read_cif(table(LETTERS_1), table(LETTERS_2), table(LETTERS_2)) == (
        {"x_A": LETTERS_1},
        ["models or blocks behind the first, left out: 2 (2 x)"],
    )


def changed_places(written: Written, place) -> None:
    """Let `place` of each label_seq_id stand in its place."""
    tables = written.tables

    def changed():
        found = tables()
        found["_atom_site"]["label_seq_id"] = list(map(place, found["_atom_site"]["label_seq_id"]))
        return found

    written.tables = changed


@pytest.mark.parametrize("kind", ["cif", "bcif"])
def test_atoms_may_stand_in_any_order(tmp_path, kind):
    """label_seq_id places them, and where SEQRES is left out as well."""
    written, path = chain_of("ALA SER THR VAL TRP LYS"), tmp_path / f"x.{kind}"
    written.seqres.clear()
    written.atoms.reverse()
    path.write_bytes(FORMATS[kind](written))
    (chain,) = read_chains(path)
    assert to_letters(chain.sequence) == "ASTVWK"
    assert chain.residue_numbers == tuple("123456")
    changed_places(written, lambda place: place - 7 if place < 4 else place + 2**30)
    path.write_bytes(FORMATS[kind](written))  # nor is memory taken for so many
    (chain,) = read_chains(path)
    assert to_letters(chain.sequence) == "ASTVWK"


def test_seqres_of_another_chain_is_refused(tmp_path):
    written = chain_of("ALA SER THR VAL TRP LYS")
    written.seqres["A"] = ["TRP"] * 6
    (tmp_path / "x.pdb").write_text(written.pdb())
    with pytest.raises(ValueError, match="chain A: its atoms do not fit its SEQRES; correct or delete"):
        read_chains(tmp_path / "x.pdb")


def test_encodings_by_hand():
    """Those of BinaryCIF, on numbers small enough to undo on paper."""

    def packed(dtype, *values):
        return np.array(values, dtype).tobytes()

    byte, short, integer = ({"kind": "ByteArray", "type": n} for n in (1, 2, 3))
    unsigned = {"kind": "ByteArray", "type": 4}
    assert decode(
        packed("<i4", 150, -25), [{"kind": "FixedPoint", "factor": 100, "srcType": 33}, integer]
    ).tolist() == [
        1.5,
        -0.25,
    ]
    assert decode(packed("<i4", 7, 3, 9, 1), [{"kind": "RunLength", "srcSize": 4}, integer]).tolist() == [7, 7, 7, 9]
    assert decode(packed("<i2", 0, 1, 1, -5), [{"kind": "Delta", "origin": 10, "srcType": 3}, short]).tolist() == [
        10,
        11,
        12,
        7,
    ]
    signed = {"kind": "IntegerPacking", "byteCount": 1, "isUnsigned": False, "srcSize": 3}
    assert decode(packed("<i1", 127, 127, 1, -128, -2, 5), [signed, byte]).tolist() == [255, -130, 5]
    assert decode(packed("<u1", 255, 0, 3), [signed | {"isUnsigned": True}, unsigned]).tolist() == [255, 3]
    steps = {"kind": "IntervalQuantization", "min": 1.0, "max": 2.0, "numSteps": 5, "srcType": 32}
    assert decode(packed("<u1", 0, 1, 4), [steps, unsigned]).tolist() == [1.0, 1.25, 2.0]
    with pytest.raises(KeyError, match="Zip"):
        decode(b"", [{"kind": "Zip"}])


def test_an_a3m_file_by_hand(tmp_path):
    path = tmp_path / "family.a3m"
    path.write_text("#4\t1\n>query 1\nMKWV\n>one\nM-aWgg.V\n>two\nddMKBVee\n>two\nMKWV\n")
    (chain,) = read_chains(path)
    assert (chain.name, to_letters(chain.sequence)) == ("family", "MKWV")
    M, K, W, V = (AMINO_ACIDS.index(letter) for letter in "MKWV")
    assert chain.alignment is not None
    assert chain.profile is not None
    assert chain.alignment.rows.tolist() == [[M, K, W, V], [M, GAP, W, V], [M, K, UNKNOWN, V], [M, K, W, V]]
    assert chain.alignment.insertions.tolist() == [[0, 0, 0, 0], [0, 0, 1, 2], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert chain.profile.shape == (4, 20)
    assert np.allclose(chain.profile.sum(1), 1, atol=1e-6)
    assert chain.cb is None


def test_stockholm_and_a3m_of_one_family_are_one():
    """In blocks, with annotations; columns in which the query has a gap are insertions of the others."""
    stockholm = """# STOCKHOLM 1.0
#=GF ID TEST
query/1-4  MK--
one/1-6    MKGA
#=GC SS_cons HHHH

query/1-4  W.V
one/1-6    -EV
#=GC SS_cons CCC
//
"""
    found, a3m = parse_stockholm(stockholm), parse_a3m(">query\nMKWV\n>one\nMKga-eV\n")
    assert np.array_equal(found.rows, a3m.rows)
    assert np.array_equal(found.insertions, a3m.insertions)
    assert found.insertions.tolist() == [[0, 0, 0, 0], [0, 0, 2, 1]]


@pytest.mark.parametrize("packed", [gzip.compress, lzma.compress])
def test_packed_files_are_unpacked(tmp_path, packed):
    path = tmp_path / ("x.fa.gz" if packed is gzip.compress else "x.fa.xz")
    path.write_bytes(packed(b">a\nMKV\n"))
    assert to_letters(read_chains(path)[0].sequence) == "MKV"
    path.write_bytes(packed(b">a\nMKV\n" * 99)[:-9])
    with pytest.raises(ValueError, match="cannot be unpacked; it is cut short, or no"):
        read_chains(path)


def test_a_file_that_the_disk_does_not_give_is_not_told_to_be_packed(tmp_path, monkeypatch):
    def broken(file, where):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(domains.protein.files, "unpacked", broken)
    for name in ("x.fa", "x.fa.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b">a\nMKV\n"))
        with pytest.raises(ValueError, match=f"{name} cannot be read: Input/output error$"):
            read_chains(tmp_path / name)


STRUCTURE = chain_of("ALA SER THR VAL TRP LYS")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.fasta", b"", "is empty"),
        ("x.pdb", b"\n \n", "is empty"),
        ("x.doc", b">a\nMK\n", "does not say what it is; possible: FASTA .*BinaryCIF"),
        ("x.pdb", b">a\nMKV\n", "cannot be read as PDB: it holds no protein chain"),
        ("x.fasta", STRUCTURE.pdb().encode(), "cannot be read as FASTA: it holds no line >name"),
        ("x.cif", STRUCTURE.pdb().encode(), "cannot be read as mmCIF: it"),
        ("x.bcif", STRUCTURE.cif().encode(), "it is no BinaryCIF file, or cut short"),
        ("x.a3m", STRUCTURE.cif().encode(), "cannot be read as A3M"),
        ("x.sto", b">a\nMKV\n", "it does not end with //: it is cut short, or no Stockholm file"),
        ("x.fasta", b"\xff\xfe\x80PNG", "it holds no line >name"),
        ("x.pdb", STRUCTURE.pdb().encode()[:-4], "it has a HEADER and no END: it is cut short"),
        ("x.pdb", STRUCTURE.pdb(end="").encode()[:284], "line . is no line of an atom, or cut short: 'ATOM"),
        ("x.cif", STRUCTURE.cif().encode()[:-150], "cut short"),
        ("x.cif", b"data_X\n_entry.id X\n", "it has no atoms: the columns _atom_site.label_atom_id"),
        ("x.bcif", STRUCTURE.bcif()[:-100], "it is no BinaryCIF file, or cut short"),
        ("x.bcif", b"\x91" * 50_000, "it is no BinaryCIF file, or cut short"),
        ("x.bcif", b"\xdd\xff\xff\xff\xff", "it is no BinaryCIF file, or cut short"),  # a list of 4 G members
        ("x.bcif", STRUCTURE.bcif()[:900], "it is no BinaryCIF file, or cut short"),
        ("x.a3m", b">a\nMKVW\n>b\nMKV\n", "sequence 'b' has 3 aligned residues and gaps, and the query has 4"),
        ("x.a3m", b">a\nMK-VW\n", "its first sequence, 'a', must be the query, without gaps"),
        ("x.a3m", b">a\nMKV\n>b\nMK1\n", "'1' in sequence 'b' is no amino acid"),
        ("x.a3m", b"#comment\n", "it holds no sequence"),
        ("x.sto", b"# STOCKHOLM 1.0\na MKV\nb M\n//\n", "cannot be read as Stockholm"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_chains(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(ValueError, match=r"there is no file nowhere.pdb; possible: FASTA"):
        read_chains(Path("nowhere.pdb"))


def test_a_folder_is_no_file_of_chains(tmp_path):
    with pytest.raises(ValueError, match="is a folder; give one of its files"):
        read_chains(tmp_path)
