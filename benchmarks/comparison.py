"""Keep the results of a comparison or a transfer in docs/NAME.json, without the folders of the machine that made them.

python benchmarks/comparison.py FOLDER NAME        FOLDER: of attend compare or attend transfer
"""

import json
import sys
from pathlib import Path

from experiments.runs import write_json


def main(folder: str, name: str) -> None:
    found = json.loads((Path(folder) / "results.json").read_text())
    for row in found["rows"]:
        row.pop("run", None)
    write_json(Path(__file__).parents[1] / "docs" / f"{name}.json", found)
    print(*found["verdicts"], sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
