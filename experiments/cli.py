"""The command line: `attend COMMAND [key=value …]`. Nothing here loads torch until a command runs."""

import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path

COMMANDS = {
    "train": "train a domain; a run folder with checkpoints, weights, metrics and a summary",
    "evaluate": "score a trained run on held-out data",
    "predict": "apply a trained run to your own input",
    "explain": "show the attention of a trained run on one HTML page",
    "generate": "continue a prompt, streamed as it is written",
    "import": "convert a model of timm or transformers to a run folder",
    "export": "write a language model as a folder that transformers loads",
    "compare": "measure one change in every domain, with intervals and costs",
    "transfer": "test whether a core trained on one domain helps another",
    "plan": "estimate whether a training fits on some devices, without having them, and how long a step takes",
    "demo": "train, evaluate and explain all four domains, on one HTML page",
    "fetch": "download entries of the Protein Data Bank, to train domain=protein on or predict from",
    "collect": "record trajectories from any Gymnasium environment, to train domain=rl on",
    "bench": "measure this machine's attention kernels",
}
ANSI_COLOR = re.compile(r"\x1b\[[\d;]*m")  # in warnings of libraries
FLAGS = "help hydra-help version cfg resolve package run multirun shell-completion config-path config-name config-dir"
FLAGS = {f"--{flag}" for flag in (*FLAGS.split(), "experimental-rerun", "info")}  # of Hydra
HELP = """attend: one self-attention core, four domains

  attend COMMAND [key=value …]

{commands}

  attend train domain=vision|protein|rl|text [run=FOLDER] [trainer.max_steps=…]
  attend evaluate run=FOLDER
  attend predict run=FOLDER input=…
  attend explain run=FOLDER [input=…]
  attend generate run=FOLDER prompt="…" [temperature=…] [length=…]
  attend fetch ids=[1ubq,4hhb]
  attend collect env=… [policy=random|heuristic|RUN|FILE.npz|FILE.zip] [target=…] [noise=…] [episodes=…]
  attend compare factor=mixer values=[softmax,window,linear] [domains=[…]] [seeds=3] [equal=steps|flops|seconds]
  attend transfer [pretrain=[vision,text]] [finetune=[…]] [modes=[scratch,tuned,frozen,random]] [seeds=3] [scale=1]
  attend plan domain=text model=7b devices=64 [device=h100] [trainer=tp_fsdp] [length=…]
  attend import source=timm|transformers|gguf [name=…] [file=…] run=FOLDER
  attend export run=FOLDER [output=…]
  attend COMMAND --help            what can be set
  eval "$(attend -sc install=bash)"   completion with TAB (bash, zsh, fish)
"""


def main() -> None:
    """Entry point of the console script. Exits with 2 where the user has to change something."""
    warnings.formatwarning = lambda message, *_: f"attend: {ANSI_COLOR.sub('', str(message))}\n"
    arguments = sys.argv[1:]
    if invalid := [argument for argument in arguments if any("\ud800" <= letter <= "\udfff" for letter in argument)]:
        fail(ValueError(f"{invalid[0]!a} holds bytes that are no UTF-8; set the terminal to UTF-8, or rename the file"))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())), end="")
        return
    if arguments[0] in ("-sc", "--shell-completion"):
        return _complete(arguments)
    if "=" in arguments[0]:  # attend key=value …: Lightning restarts a training so on every rank, in Hydra's grammar
        arguments = ["train", *(map(from_restart, arguments) if "LOCAL_RANK" in os.environ else arguments)]
    command, *overrides = arguments
    overrides = [expand_home(argument) for argument in overrides]
    try:
        if command not in COMMANDS:
            raise ValueError(f"{command!r} is no command; possible: {', '.join(COMMANDS)} (attend --help)")
        if command == "train":
            _train(overrides)
        elif "-h" in overrides or "--help" in overrides:
            print((Path(import_module("conf").__path__[0]) / f"{command}.yaml").read_text(), end="")
        else:
            from experiments.compose import compose, nest_run_settings
            from experiments.console import spinner

            if command == "bench" and overrides and "=" not in overrides[0]:  # attend bench kernels
                overrides[0] = f"what={overrides[0]}"
            config = compose(command, nest_run_settings(command, overrides))
            with spinner("loading torch …"):
                module = import_module(f"experiments.{command}")
            module.run(config)
    except ValueError as error:
        fail(error)
    except KeyboardInterrupt:
        print("attend: stopped", file=sys.stderr)
        sys.exit(130)


def from_restart(argument: str) -> str:
    """Return an override as it was typed; Lightning starts other ranks with Hydra's grammar."""
    from experiments.overrides import from_hydra

    return argument if argument.startswith("hydra.") else from_hydra(argument)


def expand_home(argument: str) -> str:
    """Expand ~ in key=~/photos: a shell does not expand it after the =."""
    key, equals, value = argument.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~/") else argument


def fail(error: Exception) -> None:
    """Print the error without its traceback, which HYDRA_FULL_ERROR=1 brings back, and exit with 2."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    print(f"attend: {error}", file=sys.stderr)
    sys.exit(2)


def _train(overrides: list[str]) -> None:
    """Start a run through Hydra, or a sweep of runs with -m."""
    import hydra
    from omegaconf import DictConfig

    from experiments.compose import (
        compose,
        to_hydra_train_overrides,
        with_init_overrides,
        with_resume_overrides,
        with_sweep_folder,
    )

    if "-h" in overrides or "--help" in overrides:
        from experiments.help import print_help

        return print_help([argument for argument in overrides if argument not in ("-h", "--help")])
    if invalid := [
        argument for argument in overrides if argument.startswith("--") and argument.partition("=")[0] not in FLAGS
    ]:
        raise ValueError(f"{invalid[0]} is no option; a setting is written key=value, such as trainer.max_steps=300")
    sweep = "-m" in overrides or "--multirun" in overrides
    if invalid := [argument for argument in overrides if argument.startswith("run=") and "${" in argument]:
        raise ValueError(f"{invalid[0]}: Hydra cannot make a folder with ${{ in its name; give another run=…")
    overrides = with_init_overrides(with_sweep_folder(overrides) if sweep else with_resume_overrides(overrides))
    if not any(argument.startswith("-") for argument in overrides):
        config = compose("config", overrides)  # raises before anything is written
        if any(argument.startswith("model.window=") for argument in overrides) and config.model.mixer.value != "window":
            warnings.warn(f"model.window does nothing with model.mixer={config.model.mixer.value}", stacklevel=2)

    @hydra.main(config_path="pkg://conf", config_name="config", version_base="1.3")
    def job(config: DictConfig) -> float:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode is RunMode.MULTIRUN:
            from experiments.job import run_sweep_job

            return run_sweep_job()
        from experiments.console import spinner

        with spinner("loading torch …"):
            from experiments.train import run

        try:
            return run(config)
        except ValueError as error:
            fail(error)
            raise

    sys.argv = [sys.argv[0], *to_hydra_train_overrides(overrides, sweep)]
    job()


def _complete(arguments: list[str]) -> None:
    """Complete a command line for a shell: first the command, then its keys, groups and choices, by Hydra."""
    import hydra

    from experiments import schemas

    words = os.environ.get("COMP_LINE", "").split(" ")
    if any(a.startswith("query") for a in arguments) and len(words) < 3:
        return print(" ".join(COMMANDS))
    command = words.pop(1) if len(words) > 2 and words[1] in COMMANDS else "train"
    os.environ["COMP_LINE"] = " ".join(words)
    schemas.register()
    sys.argv = [sys.argv[0], *arguments]
    name = "config" if command == "train" else command
    hydra.main(config_path="pkg://conf", config_name=name, version_base="1.3")(lambda config: None)()


if __name__ == "__main__":
    main()
