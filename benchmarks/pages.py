"""Write docs/results.md and docs/performance.md from the files that hold what was measured.

python benchmarks/pages.py
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bench import cells

ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    """One recipe: what it scored, and what others report for the nearest thing."""

    command: str
    file: str  # in docs/results; empty if it was not measured
    measure: str  # its key in that file
    name: str  # what the measure is called, with its unit
    digits: int
    beside: str  # the literature's figure, with its source; – if there is none
    differs: str
    factor: float = 1.0


ROWS = [
    Row(
        "domain=vision",
        "digits",
        "accuracy",
        "test accuracy, %",
        1,
        "{baseline/support-vector machine:.3f} (a support-vector machine, of 1)",
        "the rival's figure is of the same images; nothing is published for a ViT on them",
        100,
    ),
    Row(
        "experiment=fashion_mnist",
        "fashion_mnist",
        "accuracy",
        "test accuracy, %",
        1,
        "94.9 (ResNet-18), 96.7 (WRN-40-4); Fashion-MNIST's README",
        "convolutional networks of 8.9 M parameters (WRN) and more",
        100,
    ),
    Row(
        "experiment=sign_digits",
        "sign_digits",
        "accuracy",
        "test accuracy, %",
        1,
        "99.5 at 100 pixels, 99.9 at 32 (a capsule network; doi 10.1007/s12652-021-02974-8)",
        "there is no official split: ours is drawn by class, theirs is not known here",
        100,
    ),
    Row(
        "domain=protein",
        "protein",
        "model P@L/5",
        "long-range P@L/5",
        3,
        "{baseline/separation prior:.3f} (separation prior), {baseline/profile-pair log-odds:.3f} (profile-pair "
        "log-odds)",
        "the rivals' figures are of the same chains",
    ),
    Row(
        "experiment=contacts",
        "contacts",
        "model P@L/5",
        "long-range P@L/5",
        3,
        "{profile-pair log-odds P@L/5:.3f} (profile-pair log-odds)",
        "the rival's figure is of the same chains; published networks read deep alignments, which "
        "these profiles are not",
    ),
    Row(
        "experiment=contacts model.triangles=true trainer.max_steps=2400",
        "contacts_triangles",
        "model P@L/5",
        "long-range P@L/5",
        3,
        "–",
        "–",
    ),
    Row(
        "experiment=contacts_alignment",
        "contacts_alignment",
        "model P@L/5",
        "long-range P@L/5",
        3,
        "0.319 (DeepCov's published weights; Jones and Kandathil 2018)",
        "on the same alignments, run once and kept in no file here; DeepCov was trained on a GPU, and reads 441 "
        "covariances of each pair",
    ),
    Row(
        "experiment=contacts_alignment model.triangles=false trainer.max_steps=1800",
        "contacts_alignment_plain",
        "model P@L/5",
        "long-range P@L/5",
        3,
        "–",
        "–",
    ),
    Row(
        "experiment=swissprot",
        "swissprot",
        "perplexity",
        "perplexity",
        2,
        "{unigram perplexity:.1f} (frequencies of residues)",
        "the rival's figure is of the same sequences; ESM-2 has 8 million parameters and more and all of UniRef",
    ),
    Row(
        "domain=rl",
        "cartpole",
        "achieved/500/mean",
        "return at target 500",
        1,
        "500 (the most that there is)",
        "–",
    ),
    Row(
        "experiment=key_to_door",
        "key_to_door",
        "achieved/1/mean",
        "success at target 1",
        3,
        "0.946 from 10,000 random walks, behaviour cloning 0.016 (Chen et al. 2021)",
        "their environment is another one with the same idea; ours is played at temperature 0.5",
    ),
    Row(
        "experiment=lunarlander",
        "lunarlander",
        "achieved/314.596/mean",
        "return at target 315",
        0,
        "200 counts as solved (Gymnasium)",
        "learnt from 600 recorded episodes of mean 18, without playing",
    ),
    Row(
        "experiment=lunarlander model.returns=false",
        "lunarlander_bc",
        "achieved/mean",
        "return, behaviour cloning",
        0,
        "–",
        "–",
    ),
    Row(
        "experiment=hopper",
        "hopper",
        "achieved/3634.68/mean",
        "return at target 3,635",
        0,
        "67.6 normalised, hopper-medium-v2 (Chen et al. 2021)",
        "no comparison: other data, v5 and not v2 of the environment, 4,500 steps and not 100,000",
    ),
    Row(
        "experiment=hopper model.returns=false",
        "hopper_bc",
        "achieved/mean",
        "return, behaviour cloning",
        0,
        "–",
        "–",
    ),
    Row(
        "experiment=hopper model.returns=false data.top_share=0.1",
        "hopper_bc10",
        "achieved/mean",
        "return, 10 %BC",
        0,
        "–",
        "–",
    ),
    Row(
        "domain=text",
        "text",
        "bits_per_byte",
        "bits per byte",
        3,
        "{xz_bits_per_byte:.3f} (xz -9, primed with the text before)",
        "the rival's figure is of the same text; both look up what followed the same bytes earlier",
    ),
    Row(
        "experiment=shakespeare_gpt2",
        "shakespeare_gpt2",
        "loss",
        "validation loss, nats",
        3,
        "1.88 (nanoGPT's README)",
        "nanoGPT's is a mean over 20 random batches, ours is over all of the split; same sizes and steps",
    ),
    Row(
        "experiment=shakespeare_modern",
        "shakespeare_modern",
        "loss",
        "validation loss, nats",
        3,
        "1.88 (nanoGPT's README)",
        "as above; same width, depth, context, batch and steps, another block and optimizer",
    ),
    Row(
        "experiment=shakespeare_gpu",
        "",
        "",
        "validation loss, nats",
        3,
        "1.4697 (nanoGPT's README)",
        "nanoGPT keeps the best of its checkpoints",
    ),
    Row("experiment=fashion_mnist_gpu", "", "", "test accuracy, %", 1, "as fashion_mnist", "–"),
    Row(
        "experiment=cifar_gpu",
        "",
        "",
        "test accuracy, %",
        1,
        "93.6 (plain ViT of 2.7 M, 100 epochs; SL-ViT's repository)",
        "theirs repeats augmented images",
    ),
    Row(
        "experiment=tiny_imagenet_gpu",
        "",
        "",
        "accuracy, %",
        1,
        "57.1 (plain ViT of 2.8 M, 100 epochs; SL-ViT's repository)",
        "theirs repeats augmented images",
    ),
    Row("domain=protein_language", "", "", "perplexity", 2, "–", "for sequences of your own; see experiment=swissprot"),
    Row("domain=joint", "", "", "every domain's own", 3, "–", "works and is tested; not run at length"),
]
EXAMPLE = Row("domain=sensors", "sensors", "accuracy", "test accuracy, %", 1, "–", "–", 100)

RESULTS = """# Results

Written by `python benchmarks/pages.py` from [results/](results), which `benchmarks/results.py` gathers from evaluated
run folders. Held-out data, the last weights and not the best, mean ± deviation over seeds. Seconds are of training, of
the fastest and the slowest seed: other work ran beside most of them. The first records kept
neither the processor nor the commit. Hardware: {hardware}. Versions:
{versions}.

{measured}

`domain=sensors` is the example of [adding_a_domain.md](adding_a_domain.md). What each score means, and how data were
split, stands with its domain: [vision](vision.md), [protein](protein.md), [rl](rl.md), [text](text.md).

## Beside the literature

{literature}

## Not measured over seeds

{missing}
"""

PERFORMANCE = """# Performance

Written by `python benchmarks/pages.py`. Timings are ratios of things that ran in turns, in one process, beside other
work on the machine; each file says on what, with which versions and by which command.

## Attention kernels

`attend bench kernels`, forward and backward unless it says otherwise ([kernels.json](kernels.json); {kernels_on}):

{kernels}

## Models beside those of others, with the same weights

{models}

Above 1 is slower.

Training the GPT-2 preset of 0.8 M parameters, tokens per second beside a plain GPT-2 with torch's AdamW
([text_training.json](../benchmarks/text_training.json)):

{training}

Below 1 is slower. Muon's step costs more on a CPU, where nothing hides it; what counts is the seconds to a loss, and
there the modern preset takes {part:.2f} of the GPT-2 preset's ([text_seconds.json](../benchmarks/text_seconds.json)).

## What decides the speed

- **Precision.** `trainer.precision=auto` is bfloat16 on a GPU that has it, float32 on a CPU, where bfloat16 is
  far slower without instructions for it. The first line of a training says which it is, and why.
- **The kernel.** `core.planner.plan` says which runs and why; a trained bias and a window are where torch alone is
  slow. Default models take no unfused path.
- **Threads.** Small models gain nothing from a second one: `OMP_NUM_THREADS=1 attend …`, and several runs side by side.
- **Data.** `data.workers=4` for images that are decoded; the digits, texts and trajectories lie in memory.
- **Not measured here:** several devices, and any GPU. `mfu` in a run's `summary.json` is the share of your device's own
  matrix products that training reached; `attend bench kernels` measures its kernels.
"""


def results() -> str:
    """docs/results.md."""
    measured, literature, missing, machines, versions = [], [], [], set(), {}
    for row in [*ROWS, EXAMPLE]:
        command, found = f"`{row.command}`", read(f"docs/results/{row.file}.json") if row.file else None
        if row.beside != "–":
            means = {} if found is None else {key: value["mean"] for key, value in found["together"].items()}
            literature.append([command, score(row, found), row.beside.format_map(means), row.differs])
        if found is None:
            missing.append([command, row.name, row.differs])
            continue
        runs, link = found["runs"], f"[{row.file}.json](results/{row.file}.json)"
        seconds = [run["seconds"] for run in runs]
        spent = f"{min(seconds):,.0f}" + (f"–{max(seconds):,.0f}" if len(runs) > 1 else "")
        machines |= {f"{run['machine']} ({run['device']})" for run in runs if ";" in run["machine"]}
        versions |= runs[-1]["versions"]
        size, states = f"{runs[0]['parameters']:,}", {run.get("commit", "not kept") for run in runs}
        commits = ", ".join(sorted({re.sub(r"^(\w{7})\w+", r"\1", state) for state in states}))
        measured.append([command, row.name, score(row, found), len(runs), spent, size, commits, link])
    return RESULTS.format(
        hardware="; ".join(sorted(machines)),
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
        measured=table(
            *("`attend train …`", "score", "measured", "seeds", "seconds", "parameters", "commit", "file"),
            rows=measured,
        ),
        literature=table("`attend train …`", "measured", "beside", "how the set-ups differ", rows=literature),
        missing=table("`attend train …`", "score", "", rows=missing),
    )


def score(row: Row, found: dict[str, Any] | None) -> str:
    """Mean ± deviation of what a row measured."""
    if found is None:
        return "–"
    value = found["together"][row.measure]
    mean, spread = (x and f"{row.factor * x:,.{row.digits}f}" for x in (value["mean"], value["deviation"]))
    return f"{mean} (one seed)" if value["deviation"] is None else f"{mean} ± {spread or 0}"


def performance() -> str:
    """docs/performance.md."""
    kernels, vision = read("docs/kernels.json"), read("benchmarks/vision.json")
    passes = {"training step": "a training step", "inference": "a forward pass"}
    models = [
        (f"{passes[row['what']]} of a ViT-Ti", "timm", row["time_ratio"], "../benchmarks/vision.json")
        for row in vision["rows"]
    ]
    for name, model in (("text_generation", "a Llama of 0.9 M"), ("text_generation_large", "SmolLM2-135M")):
        file = f"benchmarks/{name}.json"
        for row in read(file)["rows"]:
            what = f"generation, {model}, batch {row['batch']}"
            models.append((what, "transformers", 1 / row["times"], f"../{file}"))
    for row in read("docs/rl_speed.json")["rows"][1:]:
        what = f"episodes of HalfCheetah, {row['what']}"
        models.append((what, "transformers, one at a time", 1 / row["times"], "rl_speed.json"))
    compared = [[what, rival, f"{time:.2f}", f"[{Path(at).name}]({at})"] for what, rival, time, at in models]
    training = [
        [row["what"], f"{row['tokens_per_second']:,.0f}", f"{row['times']:.2f}"]
        for row in read("benchmarks/text_training.json")["rows"]
    ]
    return PERFORMANCE.format(
        kernels_on=f"{kernels['machine']}, {kernels['device']}, torch {kernels['versions']['torch']}",
        kernels=table(
            "case",
            "plan",
            "ms",
            "peak MB",
            "against",
            "time ×",
            "memory ×",
            rows=[cells(row) for row in kernels["rows"]],
        ),
        models=table("what", "beside", "time, theirs = 1", "file", rows=compared),
        training=table("", "tokens per second", "speed, plain GPT-2 = 1", rows=training),
        part=read("benchmarks/text_seconds.json")["rows"][1]["part"],
    )


def table(*columns: str, rows: list[list[Any]]) -> str:
    return "\n".join(
        [
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
            *(f"| {' | '.join(map(str, row))} |" for row in rows),
        ]
    )


def read(path: str) -> dict[str, Any]:
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    (ROOT / "docs" / "results.md").write_text(results(), encoding="utf-8")
    (ROOT / "docs" / "performance.md").write_text(performance(), encoding="utf-8")
