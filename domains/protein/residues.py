"""One-letter codes of residue names, of the PDB and of force fields."""

from collections.abc import Callable, Iterable

from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended

from domains.protein.read_warnings import ReadWarnings

STANDARD = {code.strip(): letter for code, letter in protein_letters_3to1.items()}  # the 20 amino acids
# protonation and bonding states in Amber, CHARMM, GROMOS, OPLS and Schrödinger
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
ONE_LETTER = PARENTS | TERMINAL | PLAIN
CAPS = {"ACE", "FOR", "NME", "NMA", "NHE", "NH2", "NAC"}  # caps of the ends of a chain; no amino acids
NUCLEOTIDES = {"A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DU", "DI", "RA", "RC", "RG", "RU"}
HSE = "HSE"  # histidine to CHARMM, homoserine to the PDB
RING, HYDROXYL = {"ND1", "CD2", "CE1", "NE2"}, {"OD"}  # atoms of either
CHARMM_HISTIDINES = {"HSD", "HSP", "HSC"}


def make_one_letter(named: Iterable[tuple[str, str]], warnings: ReadWarnings) -> Callable[[str], str]:
    """Return a function from a residue name in one file to its one-letter code, or "" without one.

    Args:
        named: (residue name, atom name) of all atoms in the file. They decide what HSE is; without its side chain,
            CHARMM's names of other histidines decide.
    """
    named = set(named)
    own = {atom for code, atom in named if code == HSE}
    histidine = bool(own & RING)
    if own and not own & (RING | HYDROXYL):
        histidine = not CHARMM_HISTIDINES.isdisjoint(code for code, _ in named)
        what = "histidine, for HSD or HSP is there" if histidine else "homoserine, for no HSD or HSP is there"
        warnings[f"residues without side chain, guessed to be {what}"].append(HSE)
    letters = ONE_LETTER | {HSE: "H"} if histidine else ONE_LETTER
    return lambda code: letters.get(code, "")


def warn_modified(codes: Iterable[str], letter: Callable[[str], str], warnings: ReadWarnings) -> None:
    """Add warnings for residues that are read as others."""
    for code in codes:
        if not letter(code):
            if code != "UNK":
                warnings["residues of unknown name, read as X"].append(code)
        elif code not in PLAIN and code not in TERMINAL and code != HSE:
            warnings["modified residues, read as the amino acid that they are made from"].append(code)
