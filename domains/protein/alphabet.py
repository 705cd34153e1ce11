"""The one-letter codes of residues and secondary structure, as integers."""

import numpy as np

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(AMINO_ACIDS)  # X, an unknown residue, and padding
GAP = UNKNOWN + 1  # in an alignment
AMBIGUOUS = "XBZJUO"  # allowed in files, but none of the 20 amino acids: read as unknown

SS8_STATES = "GHIBEST-"  # DSSP's 8 states of secondary structure; - is none of the others
SS3_GROUPS = {"helix": "GHI", "strand": "BE", "coil": "ST-"}

RESIDUE_CODES = np.full(128, -1, np.int8)  # code of each ASCII character; -1: not a residue
RESIDUE_CODES[[ord(letter) for letter in AMBIGUOUS]] = UNKNOWN
RESIDUE_CODES[[ord(letter) for letter in AMINO_ACIDS]] = range(len(AMINO_ACIDS))
RESIDUE_CODES[ord("-")] = GAP


def encode_residues(letters: str) -> np.ndarray:
    """Return the codes of one-letter amino acids; others are UNKNOWN."""
    codes = RESIDUE_CODES[np.frombuffer(letters.encode("ascii", "replace"), np.uint8)].astype(np.int64)
    return np.where((codes < 0) | (codes > UNKNOWN), UNKNOWN, codes)


def encode_ss8(letters: np.ndarray) -> np.ndarray:
    """Return the codes (N,) of DSSP's letters, bytes (N,); a blank or any other letter is -."""
    return np.array(
        [SS8_STATES.find(letter) % len(SS8_STATES) for letter in letters.tobytes().decode("latin-1")], np.int64
    )
