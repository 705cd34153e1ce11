"""Fill the tables of docs/results.md and docs/performance.md from the files of measurements.

python benchmarks/pages.py

A table is between <!-- its name --> and <!-- end -->. The rest of the pages is written by hand, except the column
"measured" beside the literature.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench import table_row

DOCS = Path(__file__).parents[1] / "docs"


class Row(NamedTuple):
    """A recipe and its score."""

    command: str
    file: str  # in docs/results
    key: str  # of the score, in that file
    score: str  # its name, with its unit
    digits: int = 1
    factor: float = 1.0
    beside: str = "–"  # other scores of that file on the same data


P, SUCCESS, RETURN = "long-range P@L/5", "success at target 1", "return, behaviour cloning"
PERCENT, NATS = ("accuracy", "test accuracy, %", 1, 100), ("loss", "validation loss, nats", 3)
ODDS = "{profile-pair log-odds P@L/5:.3f} (profile-pair log-odds)"
PRIOR = (
    "{baseline/separation prior:.3f} (separation prior), {baseline/profile-pair log-odds:.3f} (profile-pair log-odds)"
)
XZ = "{xz_bits_per_byte:.3f} (xz -9, primed with the text before)"
ROWS = [
    Row("domain=vision", "digits", *PERCENT, "{baseline/support-vector machine:.3f} (support-vector machine, of 1)"),
    Row("experiment=fashion_mnist", "fashion_mnist", *PERCENT),
    Row("experiment=sign_digits", "sign_digits", *PERCENT),
    Row("domain=protein", "protein", "model P@L/5", P, 3, beside=PRIOR),
    Row("experiment=contacts", "contacts", "model P@L/5", P, 3, beside=ODDS),
    Row(
        "experiment=contacts model.triangle_multiplication=true trainer.max_steps=2400",
        "contacts_triangles",
        "model P@L/5",
        P,
        3,
    ),
    Row("experiment=contacts_alignment", "contacts_alignment", "model P@L/5", P, 3),
    Row(
        "experiment=contacts_alignment model.triangle_multiplication=false trainer.max_steps=1800",
        *("contacts_alignment_plain", "model P@L/5", P, 3),
    ),
    Row(
        *("experiment=swissprot", "swissprot", "perplexity", "perplexity", 2),
        beside="{unigram perplexity:.1f} (frequencies of residues)",
    ),
    Row("domain=rl", "cartpole", "achieved/500/mean", "return at target 500", beside="500 (the most that there is)"),
    Row("experiment=key_to_door", "key_to_door", "achieved/1/mean", SUCCESS, 3),
    Row("experiment=lunarlander", "lunarlander", "achieved/314.596/mean", "return at target 315", 0),
    Row("experiment=lunarlander model.return_conditioned=false", "lunarlander_bc", "achieved/mean", RETURN, 0),
    Row("experiment=hopper", "hopper", "achieved/3634.68/mean", "return at target 3,635", 0),
    Row("experiment=hopper model.return_conditioned=false", "hopper_bc", "achieved/mean", RETURN, 0),
    Row(
        "experiment=hopper model.return_conditioned=false data.top_share=0.1",
        "hopper_bc10",
        "achieved/mean",
        "return, 10 %BC",
        0,
    ),
    Row("domain=text", "text", "bits_per_byte", "bits per byte", 3, beside=XZ),
    Row("experiment=shakespeare_gpt2", "shakespeare_gpt2", *NATS),
    Row("experiment=shakespeare_modern", "shakespeare_modern", *NATS),
    Row("domain=sensors", "sensors", *PERCENT),
]


def results() -> str:
    """Return docs/results.md with its tables filled."""
    page, rows, machines, versions = (DOCS / "results.md").read_text(encoding="utf-8"), [], set(), {}
    for row in ROWS:
        found = read(f"results/{row.file}.json")
        runs, scores = found["runs"], {key: value["mean"] for key, value in found["together"].items()}
        value = found["together"][row.key]
        mean, spread = (x and f"{row.factor * x:,.{row.digits}f}" for x in (value["mean"], value["deviation"]))
        score = f"{mean} (one seed)" if value["deviation"] is None else f"{mean} ± {spread or 0}"
        seconds = [f"{pick([run['seconds'] for run in runs]):,.0f}" for pick in (min, max)]
        machines |= {f"{run['machine']} ({run['device']})" for run in runs if ";" in run["machine"]}
        versions |= runs[-1]["versions"]
        commits = {re.sub(r"^(\w{7})\w+", r"\1", run.get("commit", "not kept")) for run in runs}
        more = (len(runs), "–".join(dict.fromkeys(seconds)), f"{runs[0]['parameters']:,}", ", ".join(sorted(commits)))
        link = f"[{row.file}.json](results/{row.file}.json)"
        rows.append((f"`{row.command}`", row.score, score, row.beside.format_map(scores), *more, link))
        page = re.sub(rf"(?m)^(\| `{re.escape(row.command)}` \|) \d[^|]*", rf"\1 {score} ", page)  # of the literature
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    columns = ("`attend train …`", "score", "measured", "beside", "seeds", "seconds", "parameters", "commit", "file")
    return fill(
        page, machines=f"Hardware: {'; '.join(sorted(machines))}. Versions: {told}.", measured=table(columns, rows)
    )


def performance() -> str:
    """Return docs/performance.md with its tables filled."""
    kernels = read("kernels.json")
    passes = {"training step": "a training step", "inference": "a forward pass"}
    rows = [
        (f"{passes[row['what']]} of a ViT-Ti", "timm", row["time_ratio"], "../benchmarks/vision.json")
        for row in read("../benchmarks/vision.json")["rows"]
    ]
    for name, model in (("text_generation", "a Llama of 0.9 M"), ("text_generation_large", "SmolLM2-135M")):
        rows += [
            (
                f"generation, {model}, batch {row['batch']}",
                "transformers",
                1 / row["times"],
                f"../benchmarks/{name}.json",
            )
            for row in read(f"../benchmarks/{name}.json")["rows"]
        ]
    rows += [
        (f"episodes of HalfCheetah, {row['what']}", "transformers, one at a time", 1 / row["times"], "rl_speed.json")
        for row in read("rl_speed.json")["rows"][1:]
    ]
    models = [(what, rival, f"{time:.2f}", f"[{Path(file).name}]({file})") for what, rival, time, file in rows]
    training = [
        (row["what"], f"{row['tokens_per_second']:,.0f}", f"{row['times']:.2f}")
        for row in read("../benchmarks/text_training.json")["rows"]
    ]
    return fill(
        (DOCS / "performance.md").read_text(encoding="utf-8"),
        machine=f"{kernels['machine']}, {kernels['device']}, torch {kernels['versions']['torch']}.",
        kernels=table(
            ("case", "plan", "ms", "peak MB", "against", "time ×", "memory ×"), map(table_row, kernels["rows"])
        ),
        models=table(("what", "beside", "time, theirs = 1", "file"), models),
        training=table(("", "tokens per second", "speed, plain GPT-2 = 1"), training),
        part=f"The modern preset takes {read('../benchmarks/text_seconds.json')['rows'][1]['part']:.2f} of the GPT-2 "
        "preset's seconds to its loss ([text_seconds.json](../benchmarks/text_seconds.json)).",
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head, *body = (f"| {' | '.join(map(str, row))} |" for row in [columns, *rows])
    return "\n".join([head, "|---" * len([*columns]) + "|", *body])


def fill(page: str, **blocks: str) -> str:
    """Replace each named block of a page."""
    for name, block in blocks.items():
        page, count = re.subn(rf"(?s)(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)", rf"\g<1>{block}\g<2>", page)
        assert count == 1, name
    return page


def read(path: str) -> dict[str, Any]:
    return json.loads((DOCS / path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name, page in (("results", results()), ("performance", performance())):
        (DOCS / f"{name}.md").write_text(page, encoding="utf-8")
