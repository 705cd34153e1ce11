"""`attend train`: one run of one domain, from a configuration to a run folder."""

import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from domains.data import SPLITS
from domains.data_warnings import record_data_warnings
from experiments.config import Accelerator, OptimizerConfig, TrainerConfig
from experiments.environment import environment
from experiments.guards import atomic_write, run_lock
from experiments.runs import make_adapter, make_data, to_dataclass, write_config, write_json, write_weights
from experiments.training.checkpoints import Checkpoints, find_checkpoint
from experiments.training.costs import Costs, measure_matmul_peak, peak_memory
from experiments.training.errors import translate_errors
from experiments.training.init_from import freeze, load_init_weights
from experiments.training.metrics_csv import merge_metrics, stash_metrics
from experiments.training.parallel import full_state_dict, parallelize
from experiments.training.plots import TrainingPlots
from experiments.training.progress import StepProgress, make_progress
from experiments.training.task import AttentionTask, TaskData, data_rank
from experiments.untrusted import load_domain, read_config

MAY_CHANGE = ("trainer", "logger", "run")  # when a run is resumed


def run(config: DictConfig) -> float:
    """Train for Hydra, and return the validation loss, for sweeps."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if folder.is_relative_to(Path.cwd()):  # as a person would type it
        folder = folder.relative_to(Path.cwd())
    with make_progress() as progress:
        summary = train(config, folder, progress, HydraConfig.get().overrides.task)
        if summary:
            progress.console.print(f"wrote {folder}; next: attend evaluate {quote(f'run={folder}')}")
    return summary.get("val", {}).get("loss", float("nan"))


def train(config: DictConfig, folder: Path, progress: Progress, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train a configuration and write its run folder, or resume the run that is there.

    Args:
        overrides: the command line, stored to resume the run.
    Returns:
        The content of summary.json on rank 0, and an empty dictionary on the others.
    Raises:
        ValueError: for a configuration that is impossible, or that differs from the resumed run's; for a folder that
            another process writes; for a full disk or memory, a loss that is NaN, or a data worker that dies.
    """
    silence_warnings()
    with run_lock(folder) if _is_rank_zero() else nullcontext():
        return _train(config, folder, progress, overrides)


def _is_rank_zero() -> bool:
    """Return whether this is rank 0; Lightning knows before it makes a trainer."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _train(config: DictConfig, folder: Path, progress: Progress, overrides: Sequence[str]) -> dict[str, Any]:
    seed_everything(config.seed, workers=True, verbose=False)
    reading = progress.add_task(f"{config.domain.name}: reading data", total=None, note="")
    try:
        with record_data_warnings(show=_is_rank_zero()) as data_warnings:
            data = make_data(config)
            spec = data.spec()
    finally:
        progress.remove_task(reading)
    train, val, test = (f"{data.size(split):,}" for split in SPLITS)
    if _is_rank_zero():
        progress.console.print(
            f"  {config.domain.name}: {train} samples to train on, {val} to validate, {test} to test"
        )
    adapter = make_adapter(config, spec)
    size = sum(p.numel() for p in adapter.parameters())
    if config.frozen:
        freeze(adapter)
    if checkpoint := find_checkpoint(folder):
        earlier = read_config(folder)
        _check_unchanged(config, earlier)
        _check_max_steps(folder, config)
        _check_sharding(checkpoint, config, earlier)
        stash_metrics(folder)
    settings: TrainerConfig = to_dataclass(TrainerConfig, config.trainer)
    record = {"config": OmegaConf.to_container(config, resolve=True, enum_to_str=True), "spec": spec}
    optimizer: OptimizerConfig = to_dataclass(OptimizerConfig, config.optimizer)
    parallelize_model = partial(
        parallelize, activation_checkpointing=settings.activation_checkpointing, compile=settings.compile
    )
    task = AttentionTask(
        adapter, optimizer, settings.max_steps, record, config.seed, parallelize_model, settings.skip_nan
    )
    bar, costs = StepProgress(progress, f"{config.domain.name}: training"), Costs()
    callbacks: list[Callback] = [costs]
    if settings.plot_every_n_steps is not None:
        callbacks.append(
            TrainingPlots(load_domain(config.domain.package), data, adapter, folder, settings.plot_every_n_steps)
        )
    trainer = make_trainer(settings, config, folder, bar, progress, callbacks)
    init_report = (
        load_init_weights(adapter, config.domain.package, Path(config.init)) if config.init and not checkpoint else None
    )
    if trainer.is_global_zero:
        write_config(folder, config, spec)
        with atomic_write(folder / ".hydra" / "overrides.yaml") as new:
            OmegaConf.save(OmegaConf.create(list(overrides)), new)
        if init_report:
            progress.console.print(f"  starting from {config.init}; {init_report}")
    with translate_errors(folder, data):
        loaders = TaskData(data)
        trainer.fit(task, loaders, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
        if settings.max_steps % settings.val_check_interval or not trainer.callback_metrics:
            trainer.validate(task, loaders, verbose=False)
        weights = full_state_dict(adapter)
        if not trainer.is_global_zero:
            return {}
        write_weights(folder, weights)
        merge_metrics(folder)
    batches_per_step = settings.accumulate_grad_batches  # this process counted its own part of one batch
    flops, tokens = (
        costs.flops * batches_per_step * trainer.world_size,
        costs.tokens * batches_per_step * data_rank(trainer)[1],
    )
    dtype = torch.bfloat16 if "bf16" in trainer.precision else torch.float32
    peak = trainer.world_size * measure_matmul_peak(trainer.strategy.root_device, dtype)
    rate = trainer.global_step / max(costs.seconds, 1e-9)
    summary = {
        "domain": config.domain.name,
        "steps": trainer.global_step,
        "seconds": round(costs.seconds, 2),
        "parameters": size,
        "flops_per_step": flops,
        "tokens_per_step": tokens,
        "tokens_per_second": tokens * rate,
        "mfu": flops * rate / peak,
        "peak_memory": peak_memory(),
        "seed": config.seed,
        "precision": trainer.precision,
        "val": {k.removeprefix("val/"): v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")},
        "data_warnings": data_warnings,
        **environment(),
    }
    write_json(folder / "summary.json", summary)
    return summary


def make_trainer(
    settings: TrainerConfig,
    config: DictConfig,
    folder: Path,
    bar: StepProgress,
    progress: Progress,
    extra_callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Return Lightning's Trainer for one run. To Lightning a run is one epoch; the data define their own epochs.

    Raises:
        ValueError: for a device, a strategy or a precision that is not available.
    """
    if settings.max_steps < 1 or settings.val_check_interval < 1 or settings.accumulate_grad_batches < 1:
        raise ValueError("trainer.max_steps, val_check_interval and accumulate_grad_batches must be at least 1")
    interval = settings.val_check_interval
    loggers = []
    if config.logger.csv:
        loggers.append(CSVLogger(folder, name="", version=""))
    if config.logger.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))

    def print_line(text: str) -> None:
        progress.console.print(f"  {text}")

    callbacks: list[Callback] = [bar, *extra_callbacks, Checkpoints(folder, interval, print_line)]
    if settings.ema_decay is not None:
        if not 0 <= settings.ema_decay < 1:
            raise ValueError(f"trainer.ema_decay must lie in [0, 1), got {settings.ema_decay}")
        callbacks.insert(0, WeightAveraging(decay=settings.ema_decay))
    precision, reason = choose_precision(settings)
    try:
        trainer = Trainer(
            accelerator=settings.accelerator.value,
            devices=int(settings.devices) if settings.devices.isdigit() else settings.devices,
            num_nodes=settings.num_nodes,
            strategy=make_strategy(settings),
            precision=precision,  # pyright: ignore[reportArgumentType]
            max_steps=settings.max_steps,
            val_check_interval=interval * settings.accumulate_grad_batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every_n_steps,
            gradient_clip_val=settings.gradient_clip_val,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            use_distributed_sampler=False,
            logger=loggers,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, RuntimeError) as error:
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
    if trainer.is_global_zero:
        devices = f"{trainer.world_size} × {trainer.strategy.root_device.type}"
        progress.console.print(f"  {bar.label} on {devices}, precision {precision} ({reason})")
    return trainer


def make_strategy(settings: TrainerConfig) -> str | Strategy:
    """Return the strategy that divides the work among processes.

    Raises:
        ValueError: for settings that need a sharded model, or that a sharded model does not support.
    """
    tensor_parallel = settings.tensor_parallel
    if settings.strategy != "shard":
        if tensor_parallel != 1:
            raise ValueError(
                f"trainer.tensor_parallel={tensor_parallel} needs trainer.strategy=shard (trainer=tp_fsdp)"
            )
        return settings.strategy
    if settings.ema_decay is not None or settings.plot_every_n_steps is not None:
        raise ValueError("trainer.strategy=shard takes no trainer.ema_decay and no trainer.plot_every_n_steps")
    gpu = settings.accelerator in (Accelerator.auto, Accelerator.gpu) and torch.cuda.is_available()
    devices_per_node = torch.cuda.device_count() if gpu else 1
    world = settings.num_nodes * (devices_per_node if settings.devices == "auto" else int(settings.devices))
    if tensor_parallel < 1 or world % tensor_parallel:
        raise ValueError(f"trainer.tensor_parallel={tensor_parallel} must divide the {world} devices")
    return ModelParallelStrategy(
        world // tensor_parallel, tensor_parallel, process_group_backend=None if gpu else "gloo"
    )


class WeightAveraging(EMAWeightAveraging):
    """Weight averaging whose average is also kept by a run that was stopped between its last checkpoint and its end.

    Buffers are constants and not averaged: an average of integers would be rounded down.
    """

    def __init__(self, decay: float):
        super().__init__(decay=decay, use_buffers=False)

    def on_fit_end(self, trainer, pl_module):
        self.on_train_end(trainer, pl_module)


def choose_precision(settings: TrainerConfig) -> tuple[str, str]:
    """Return the precision that `auto` means on this machine, and the reason.

    bfloat16 halves memory and multiplies speed on a GPU that has it. On a CPU without such instructions it is hundreds
    of times slower than float32, and a model of a few million parameters gains little from them where they exist.

    Raises:
        ValueError: for float16 on a CPU, which Lightning would replace by bfloat16.
    """
    on_gpu = settings.accelerator in (Accelerator.auto, Accelerator.gpu) and torch.cuda.is_available()
    if settings.precision.startswith("16-mixed") and not on_gpu and settings.accelerator is not Accelerator.mps:
        raise ValueError("trainer.precision=16-mixed needs a GPU; possible on a CPU: bf16-mixed, 32-true, 64-true")
    if settings.precision != "auto":
        return settings.precision, "as asked"
    if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", "auto: this GPU has bfloat16"
    return "32-true", "auto: float32, as this GPU has no bfloat16" if on_gpu else "auto: float32 on a CPU"


def silence_warnings() -> None:
    """Silence Lightning's tips, and warnings about deliberate choices."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)  # hints about speed
    for message in (
        "(?s).*The `srun` command is available on your system but is not used",  # on purpose, on a login node
        "(?s).*using the WeightAveraging callback with a model that overrides",  # nothing is sharded where it is used
        "FSDP2-wrapped module .* returned a view",  # that nobody changes in place
        "(?s).*does not have many workers",
        "(?s).*number of training batches .* is smaller than the logging interval",
        "(?s).*isinstance.*LeafSpec",
        "(?s).*your dataloader is not resumable",  # it is: domains/sampling.py
        "(?s).*Experiment logs directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message)


def _check_sharding(checkpoint: Path, config: DictConfig, earlier: Any) -> None:
    """Raise ValueError if a sharded checkpoint meets an unsharded run, or the other way round."""
    tensor_parallel = [max(1, group.get("tensor_parallel", 1)) > 1 for group in (config.trainer, earlier["trainer"])]
    if checkpoint.is_dir() != (config.trainer.strategy == "shard") or tensor_parallel[0] != tensor_parallel[1]:
        was = earlier["trainer"]
        raise ValueError(
            f"{checkpoint} was written with trainer.strategy={was['strategy']} and trainer.tensor_parallel="
            f"{was.get('tensor_parallel', 1)}; go on with these, on any number of devices (trainer.devices, num_nodes)"
        )


def _check_max_steps(folder: Path, config: DictConfig) -> None:
    """Raise ValueError if a finished run is resumed with fewer steps than it has."""
    summary = folder / "summary.json"
    finished_steps = json.loads(summary.read_text()).get("steps", 0) if summary.is_file() else 0
    if finished_steps > config.trainer.max_steps:
        raise ValueError(
            f"{folder} has come to its end after {finished_steps} steps, more than trainer.max_steps="
            f"{config.trainer.max_steps}; give more of them to go on, or another run=… for a new run"
        )


def _check_unchanged(config: DictConfig, earlier: Any) -> None:
    """Raise ValueError if a resumed run's configuration changed."""
    current = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(current, dict)
    for group, value in current.items():
        earlier_value = earlier.get(group)
        if group not in MAY_CHANGE and earlier_value != value:
            raise ValueError(
                f"{config.run} was trained with {group}={earlier_value}; it cannot go on with {group}={value}. "
                f"Only {', '.join(MAY_CHANGE)} may change; give another run=… for a new run"
            )
