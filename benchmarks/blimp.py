"""Accuracy on BLiMP's minimal pairs by EleutherAI's harness: how often the grammatical sentence is the likelier one.

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
    args = options.parse_args()
    file = Path(__file__).with_name("text_blimp.json")
    for run in args.runs:
        _, adapter = load_run(run)
        if not isinstance(adapter, Adapter):
            options.error(f"{run} is of another domain; give a run of domain=text")
        accuracies = measure(adapter, args.archive, args.tasks.split(","), args.limit)
        result: dict[str, Any] = {"run": run.name, "parameters": sum(p.numel() for p in adapter.parameters())}
        result |= {"pairs": args.limit or 1000, "mean": mean(accuracies.values()), "shares": accuracies}
        print(result)
        record = json.loads(file.read_text()) if file.exists() else {"rows": []}
        rows = [record | row for row in record.pop("rows")]  # each says when and where; once the file said it for all
        write_json(file, {"rows": [*(row for row in rows if row["run"] != run.name), result | environment()]})


def measure(adapter: Adapter, archive: str, tasks: list[str], limit: int | None) -> dict[str, float]:
    """Return the share of pairs whose grammatical sentence is the likelier, for each task."""
    with TemporaryDirectory() as folder, tarfile.open(archive) as archive_file:
        archive_file.extractall(
            folder, [archive_file.getmember(f"blimp/{name}.jsonl") for name in tasks], filter="data"
        )
        for name in tasks:
            Path(folder, f"{name}.yaml").write_text(TASK.format(name=name, folder=folder))
        task_names: list[Any] = [f"blimp_{name}" for name in tasks]
        manager = TaskManager(include_path=folder, include_defaults=False)
        result: Any = simple_evaluate(
            model=Harness(adapter), tasks=task_names, task_manager=manager, limit=limit, bootstrap_iters=0
        )
        return {name: result["results"][f"blimp_{name}"]["acc,none"] for name in tasks}


if __name__ == "__main__":
    main()
