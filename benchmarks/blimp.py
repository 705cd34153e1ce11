"""BLiMP's minimal pairs by EleutherAI's harness: how often the grammatical sentence is the likelier one.

    python benchmarks/blimp.py ARCHIVE RUN [RUN …] [--tasks a,b,…] [--limit 250]

ARCHIVE is blimp.tar.xz, with a file of JSON lines for each task. Prints the share of each task, and writes it into
benchmarks/text_blimp.json, under the run's name; other runs stay.

Source: Warstadt et al. 2020. Needs pip install -e '.[harness]'.
"""

import argparse
import json
import tarfile
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from domains.text.adapter import Adapter
from domains.text.harness import Harness
from experiments.environment import environment
from experiments.runs import load_run, write_json

TASKS = (
    "anaphor_number_agreement",
    "determiner_noun_agreement_1",
    "regular_plural_subject_verb_agreement_1",
    "existential_there_quantifiers_1",
    "principle_A_case_1",
    "wh_vs_that_no_gap",
)
TASK = """
task: blimp_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/blimp/{name}.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: ""
target_delimiter: ""
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("archive")
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--tasks", default=",".join(TASKS))
    options.add_argument("--limit", type=int, help="pairs of each task; all 1,000 if not given")
    given = options.parse_args()
    file = Path(__file__).with_name("text_blimp.json")
    for run in given.runs:
        _, adapter = load_run(run)
        if not isinstance(adapter, Adapter):
            options.error(f"{run} is of another domain; give a run of domain=text")
        found = measure(adapter, given.archive, given.tasks.split(","), given.limit)
        told: dict[str, Any] = {"run": run.name, "parameters": sum(p.numel() for p in adapter.parameters())}
        told |= {"pairs": given.limit or 1000, "mean": mean(found.values()), "shares": found}
        print(told)
        known = json.loads(file.read_text()) if file.exists() else {"rows": []}
        rows = [known | row for row in known.pop("rows")]  # each says when and where; once the file said it for all
        write_json(file, {"rows": [*(row for row in rows if row["run"] != run.name), told | environment()]})


def measure(adapter: Adapter, archive: str, tasks: list[str], limit: int | None) -> dict[str, float]:
    """The share of pairs whose grammatical sentence is the likelier, for each task."""
    with TemporaryDirectory() as folder, tarfile.open(archive) as packed:
        packed.extractall(folder, [packed.getmember(f"blimp/{name}.jsonl") for name in tasks], filter="data")
        for name in tasks:
            Path(folder, f"{name}.yaml").write_text(TASK.format(name=name, folder=folder))
        named: list[Any] = [f"blimp_{name}" for name in tasks]
        manager = TaskManager(include_path=folder, include_defaults=False)
        told: Any = simple_evaluate(
            model=Harness(adapter), tasks=named, task_manager=manager, limit=limit, bootstrap_iters=0
        )
        return {name: told["results"][f"blimp_{name}"]["acc,none"] for name in tasks}


if __name__ == "__main__":
    main()
