"""Readers of mmCIF and BinaryCIF files."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import gemmi

from domains.protein.binarycif import parse_binary_cif
from domains.protein.chain import Chain
from domains.protein.read_warnings import ReadWarnings
from domains.protein.structures import ATOMS, Atom, Name, Polymers, build_chains

CATEGORIES = ("_atom_site", "_pdbx_poly_seq_scheme", "_entity_poly_seq", "_struct_asym")
LABELS = ("label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_seq_id")
OTHERS = "models or blocks behind the first, left out"


def parse_cif(text: str, stem: str, warnings: ReadWarnings) -> list[Chain]:
    """Parse the protein chains of the first block with atoms in an mmCIF file, and of its first model.

    Raises:
        ValueError: what is wrong with the file.
    """
    try:
        columns, others = _columns(text)
    except (ValueError, RuntimeError, LookupError) as error:
        raise ValueError("it is no mmCIF file, or cut short") from error
    return _cif_chains(columns, others, stem, warnings)


def parse_bcif(data: bytes, stem: str, warnings: ReadWarnings) -> list[Chain]:
    """Parse a BinaryCIF file (`parse_cif`)."""
    columns, others = parse_binary_cif(data, CATEGORIES)
    return _cif_chains(columns, others, stem, warnings)


def _columns(text: str) -> tuple[dict[str, list[str]], int]:
    """Return the columns of the first block with atoms, and the number of other blocks with atoms."""
    plain = text.encode("ascii", "replace").decode()  # other letters occur in quoted text only, which is not read
    blocks = gemmi.cif.read_string(plain, check_level=0)  # several may share a name
    with_atoms = [block for block in blocks if "_atom_site." in block.get_mmcif_category_names()] or [*blocks]
    block = gemmi.cif.read_string(with_atoms[0].as_string())[0]  # parse again with checks: a repeated tag is an error
    columns = {
        f"{category}.{tag}": ["?" if value is None else value or "." for value in values]
        for category in CATEGORIES
        for tag, values in block.get_mmcif_category(f"{category}.").items()
    }
    return columns, len(with_atoms) - 1


def _table(columns: Mapping[str, list], category: str, *tags: str) -> list[tuple]:
    """Return the rows of some columns of a category; none if a column is missing."""
    if any(f"{category}.{tag}" not in columns for tag in tags):
        return []
    found = [columns[f"{category}.{tag}"] for tag in tags]
    if len({len(column) for column in found}) > 1:
        raise ValueError(f"the columns of {category} differ in length: it is cut short")
    return list(zip(*found, strict=True))


def _cif_chains(columns: Mapping[str, list], others: int, stem: str, warnings: ReadWarnings) -> list[Chain]:
    rows = _table(columns, "_atom_site", *LABELS, "Cartn_x", "Cartn_y", "Cartn_z")
    if not rows:
        raise ValueError(f"it has no atoms: the columns _atom_site.{', '.join(LABELS)} and Cartn_x, y, z must be there")
    models = columns.get("_atom_site.pdbx_PDB_model_num", [1])
    others += len(dict.fromkeys(models)) - 1
    if others:
        warnings[OTHERS] += [stem] * others
    polymers = _polymers(columns)
    named = {(row[2], row[0]) for row in rows}
    return build_chains(_atoms(columns, rows, polymers), polymers, stem, named, warnings)


def _atoms(columns: Mapping[str, list], rows: list[tuple], polymers: Polymers) -> Iterator[Atom]:
    """Yield the atoms. label_* are the polymers and their SEQRES indices, auth_* the author numbering.

    Some programs write author numbers in label_seq_id, or nothing, and leave SEQRES out.
    """

    def column(tag: str, otherwise: Sequence) -> Sequence:
        found = columns.get(f"_atom_site.{tag}", otherwise)
        if len(found) != len(rows):
            raise ValueError(f"_atom_site.{tag} has {len(found)} rows instead of {len(rows)}: it is cut short")
        return found

    asym, seq = [row[3] for row in rows], [row[4] for row in rows]
    placed = any(
        _given(seqres_index) for seqres_index in seq
    )  # then what has no place is no part of a polymer: ligands and water
    chains, numbers = column("auth_asym_id", asym), column("auth_seq_id", seq)
    insertions, models = column("pdbx_PDB_ins_code", [""] * len(rows)), column("pdbx_PDB_model_num", [1] * len(rows))
    occupancies, kinds = column("occupancy", [1.0] * len(rows)), column("group_PDB", ["ATOM"] * len(rows))
    for n, (atom, altloc, code, label, seqres_index, *xyz) in enumerate(rows):
        if models[n] != models[0] or atom not in ATOMS:
            continue
        loose = placed and not _given(seqres_index)
        try:
            x, y, z = map(float, xyz)
            number = int(_given(numbers[n]) or _given(seqres_index) or "0" * loose)
            occupancy = float(occupancies[n]) if _given(occupancies[n]) else 1.0
            at = int(seqres_index) - 1 if _given(seqres_index) else None
        except (ValueError, OverflowError) as error:
            raise ValueError(f"row {n + 1} of _atom_site is no atom, or cut short: {error}") from error
        chain, het = Name(_given(label), _given(chains[n]) or _given(label)), kinds[n] == "HETATM"
        residue = code, number, _given(insertions[n]), at
        yield Atom(chain, 0, het, loose, atom, _given(altloc), *residue, occupancy, (x, y, z))


def _given(value: object) -> str:
    """Return the value as text; "" for mmCIF's missing values."""
    return "" if value in (".", "?", "", None) else str(value)


def _polymers(columns: Mapping[str, list]) -> Polymers:
    """Return all residues of each polymer in order; of several with one index, the first."""
    scheme = _table(columns, "_pdbx_poly_seq_scheme", "asym_id", "seq_id", "mon_id")
    if not scheme:
        entities = defaultdict(list)
        for entity, seqres_index, code in _table(columns, "_entity_poly_seq", "entity_id", "num", "mon_id"):
            entities[str(entity)].append((seqres_index, code))
        asyms = _table(columns, "_struct_asym", "id", "entity_id")
        scheme = [(asym, seqres_index, code) for asym, entity in asyms for seqres_index, code in entities[str(entity)]]
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for asym, seqres_index, code in scheme:
        if not _given(seqres_index).lstrip("-").isdigit():
            raise ValueError(f"{seqres_index!r} is no place of a residue in its polymer")
        found[str(asym)].setdefault(int(seqres_index), code)
    return {asym: [codes[seqres_index] for seqres_index in sorted(codes)] for asym, codes in found.items()}
