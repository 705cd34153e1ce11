"""The one-letter code, as numbers."""

import numpy as np

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(LETTERS)  # the number of X and of padding, a residue of no known kind
GAP = UNKNOWN + 1  # of an alignment
AMBIGUOUS = "XBZJUO"  # legal in a file, but none of the 20 amino acids: read as unknown

STATES = "GHIBEST-"  # of secondary structure, by DSSP; the last is none of the others
THREE = {"helix": "GHI", "strand": "BE", "coil": "ST-"}

NUMBERS = np.full(128, -1, np.int8)  # of each ASCII character; -1 for what is no residue
NUMBERS[[ord(letter) for letter in AMBIGUOUS]] = UNKNOWN
NUMBERS[[ord(letter) for letter in LETTERS]] = range(len(LETTERS))
NUMBERS[ord("-")] = GAP


def numbered(letters: str) -> np.ndarray:
    """Amino acids as numbers; what is not one of LETTERS is UNKNOWN."""
    codes = NUMBERS[np.frombuffer(letters.encode("ascii", "replace"), np.uint8)].astype(np.int64)
    return np.where((codes < 0) | (codes > UNKNOWN), UNKNOWN, codes)


def numbered_states(letters: np.ndarray) -> np.ndarray:
    """DSSP's letters, as bytes (N,), as numbers in STATES; a blank, or any other, is none of the named ones."""
    return np.array([STATES.find(letter) % len(STATES) for letter in letters.tobytes().decode("latin-1")], np.int64)
