"""Names of residues, the PDB's and those of force fields, as one-letter codes."""

from collections.abc import Callable, Iterable

from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended

from domains.protein.remarks import Remarks

STANDARD = {code.strip(): letter for code, letter in protein_letters_3to1.items()}  # of the 20 amino acids
# states of protonation and bonding, as Amber, CHARMM, GROMOS, OPLS and Schrödinger call them
PROTONATED = {
    "H": "HID HIE HIP HSD HSP HSC HISA HISB HISD HISE HISH HISP HIS1 HIS2 HIH",
    "D": "ASH ASPH ASPP",
    "E": "GLH GLUH GLUP",
    "K": "LYN LYSH LYSN LSN LYH LYP",
    "C": "CYX CYM CYN CYSH CYSX CYH CYS1 CYS2 CYSM",
    "R": "ARN ARGN AR0",
    "Y": "TYM",
}
FORCE_FIELDS = {name: letter for letter, names in PROTONATED.items() for name in names.split()}
PARENTS = {code.strip(): letter for code, letter in protein_letters_3to1_extended.items()}  # MSE is M
PARENTS |= {"SEC": "C", "PYL": "K"}
PLAIN = STANDARD | FORCE_FIELDS
TERMINAL = {end + name: letter for end in "NC" for name, letter in PLAIN.items() if len(name) == 3}  # Amber's NALA
LETTER = PARENTS | TERMINAL | PLAIN
CAPS = {"ACE", "FOR", "NME", "NMA", "NHE", "NH2", "NAC"}  # of the ends of a chain; no amino acids
NUCLEOTIDES = {"A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DU", "DI", "RA", "RC", "RG", "RU"}
HSE = "HSE"  # histidine to CHARMM, homoserine to the PDB
RING, HYDROXYL = {"ND1", "CD2", "CE1", "NE2"}, {"OD"}  # atoms of either
KIN = {"HSD", "HSP", "HSC"}


def make_letter(named: Iterable[tuple[str, str]], remarks: Remarks) -> Callable[[str], str]:
    """Return a function from the name of a residue in one file to its letter, or "" where it has none.

    Args:
        named: the names of residues in the file, each with the name of an atom of it. They tell what HSE is; where its
            side chain is missing, CHARMM's names for other histidines do.
    """
    named = set(named)
    own = {atom for code, atom in named if code == HSE}
    histidine = bool(own & RING)
    if own and not own & (RING | HYDROXYL):
        histidine = not KIN.isdisjoint(code for code, _ in named)
        what = "histidine, for HSD or HSP is there" if histidine else "homoserine, for no HSD or HSP is there"
        remarks[f"residues without side chain, guessed to be {what}"].append(HSE)
    letters = LETTER | {HSE: "H"} if histidine else LETTER
    return lambda code: letters.get(code, "")


def remark(codes: Iterable[str], letter: Callable[[str], str], remarks: Remarks) -> None:
    """Say which residues are read as others."""
    for code in codes:
        if not letter(code):
            if code != "UNK":
                remarks["residues of unknown name, read as X"].append(code)
        elif code not in PLAIN and code not in TERMINAL and code != HSE:
            remarks["modified residues, read as the amino acid that they are made from"].append(code)
