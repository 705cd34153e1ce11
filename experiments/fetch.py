"""`attend fetch`: download entries of the Protein Data Bank by their ids."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from shlex import quote

from Bio.PDB.PDBList import PDBList
from omegaconf import DictConfig

from domains.protein.files import read_chains
from experiments.config import FetchConfig
from experiments.console import make_console
from experiments.runs import to_dataclass


def run(config: DictConfig) -> None:
    c: FetchConfig = to_dataclass(FetchConfig, config)
    console = make_console()
    for path in fetch(c.ids, Path(c.output)):
        chains = ", ".join(f"{chain.name} with {len(chain)} residues" for chain in read_chains(path))
        console.print(f"wrote {path}: {chains}")
    console.print(f"next: attend train domain=protein data=structures {quote(f'data.path={c.output}')}")


def fetch(ids: list[str], folder: Path) -> list[Path]:
    """Download the mmCIF files of these entries from wwPDB, unless they are in the folder, and return their paths.

    Raises:
        ValueError: for an invalid id, before anything is downloaded; or for an entry that cannot be downloaded.
    """
    invalid = [entry for entry in ids if not re.fullmatch("[0-9][A-Za-z0-9]{3}", entry)]
    if invalid or not ids:
        raise ValueError(f"ids={','.join(invalid)} are no ids of the PDB; they look like ids=[1ubq,4hhb]")
    return [_fetch(entry.lower(), folder) for entry in ids]


def _fetch(entry: str, folder: Path) -> Path:
    path, output = folder / f"{entry}.cif", StringIO()
    try:
        with redirect_stdout(output):  # PDBList prints its errors
            PDBList(pdb=str(folder), verbose=False).retrieve_pdb_file(entry, pdir=str(folder), file_format="mmCif")
    except (OSError, EOFError) as error:  # the download broke off
        path.unlink(missing_ok=True)
        output.write(str(error))
    if not path.is_file():
        raise ValueError(
            f"{entry} cannot be fetched ({' '.join(output.getvalue().split())}); check the id and the network, or put "
            f"the entry's file {path.name} into {folder} yourself"
        )
    return path
