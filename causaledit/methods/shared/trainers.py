"""What methods need from trl's trainers: arguments, silence, a schedule without an idle step, callbacks."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import math
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import datasets
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.training_args import OptimizerNames

from causaledit.errors import EditFailedError, HparamsError, ModelError, did_you_mean
from causaledit.methods.shared.tracking import TrackedSettings, open_runs, tracker_arguments, tracker_output
from causaledit.models.frozen import FrozenLayers, frozen_layers
from causaledit.models.randomness import randomness_of
from causaledit.models.sharded import rows_apart, without_accelerates_sharding
from causaledit.support.extras import require_extra
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from causaledit.support.progress import ProgressSink


class TrainerSettings(TrackedSettings, Protocol):
    """A method's hyper-parameters for its optimiser and its trackers."""

    seed: int
    optimizer: str
    adam_epsilon: float
    gradient_checkpointing: bool


def refuse_zero3(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse DeepSpeed's ZeRO stage 3, under which a LoRA adapter on frozen weights fails in its first backward pass.

    Args:
        environment: What `accelerate launch` sets for its processes.

    Raises:
        ModelError: Stage 3 is configured, by accelerate's plugin, its environment or transformers' own configuration.
    """
    if is_deepspeed_zero3_enabled() or _zero_stage(environment) == 3:
        raise ModelError(
            "DeepSpeed ZeRO stage 3 cannot train a LoRA adapter on frozen weights (it fails in the backward pass): "
            "set `zero_stage` to 0, 1 or 2 in the accelerate configuration, or start without DeepSpeed."
        )


def refuse_unknown_optimizer(hparams: TrainerSettings) -> None:
    """Refuse an optimiser that transformers does not know, or whose package is missing.

    Raises:
        HparamsError: It has no such name.
        MissingExtraError: It is one of bitsandbytes', which is not installed.
    """
    name, known = hparams.optimizer, [item.value for item in OptimizerNames]
    if name == "auto":
        return
    if name not in known:
        raise HparamsError(
            f"`optimizer` is {name!r}, which transformers does not know.{did_you_mean(name, known)} Give `auto` or a "
            "name of its `optim`, such as adamw_torch."
        )
    if name.startswith("paged_") or "bnb" in name or name == "adamw_8bit":
        require_extra("gpu", f"`optimizer: {name}`")


def _zero_stage(environment: Mapping[str, str]) -> int | None:
    """The ZeRO stage of accelerate's plugin in this process, or of the one that its environment describes."""
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    if AcceleratorState._shared_state and (plugin := AcceleratorState().deepspeed_plugin) is not None:
        return int(plugin.zero_stage)
    if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() not in ("1", "true", "yes"):
        return None
    file = expanded(environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none"))
    if file.is_file():
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            stage = json.loads(file.read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage")
            if stage is not None and str(stage).isdigit():
                return int(stage)
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    return int(stage) if stage.isdigit() else None


def optimizer_name(hparams: TrainerSettings, device: torch.device) -> str:
    """`auto`: 8-bit paged AdamW where there are bitsandbytes and a GPU, plain AdamW otherwise."""
    if hparams.optimizer != "auto":
        return hparams.optimizer
    if device.type == "cuda" and importlib.util.find_spec("bitsandbytes"):
        return "paged_adamw_8bit"
    return "adamw_torch"


@contextlib.contextmanager
def trainer_arguments(
    model: PreTrainedModel | PeftModel, hparams: TrainerSettings, *, stage: str, subjects: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Arguments common to all trainers; their output folder lasts as long as the block, and so does checkpointing.

    Args:
        stage: What is trained, as losses are called in a report; it names the run in a tracker.
        subjects: Of the edits; so do they.
    """
    device = model.device
    folders = tempfile.TemporaryDirectory(prefix="causaledit-")
    sharded_once = without_accelerates_sharding()
    with folders as folder, _checkpointing_restored(model), tracker_output(hparams), sharded_once:
        yield {
            "output_dir": folder,
            "seed": hparams.seed,
            "data_seed": hparams.seed,
            "optim": optimizer_name(hparams, device),
            "adam_epsilon": hparams.adam_epsilon,
            "weight_decay": 0.0,
            "logging_steps": 1,
            "logging_strategy": "steps",
            "logging_nan_inf_filter": False,  # a loss that is not finite must be seen, not averaged away
            "save_strategy": "no",
            **tracker_arguments(hparams, stage, subjects),
            "disable_tqdm": True,
            "use_cpu": device.type == "cpu",
            "bf16": device.type == "cuda" and model.dtype == torch.bfloat16,
            "fp16": False,
            "gradient_checkpointing": hparams.gradient_checkpointing,
            "gradient_checkpointing_kwargs": {"use_reentrant": False} if hparams.gradient_checkpointing else None,
            "dataloader_pin_memory": False,
            "remove_unused_columns": False,
        }


@contextlib.contextmanager
def checkpointing_paused(model: nn.Module) -> Iterator[None]:
    """For the block no layer recomputes its activations: a checkpointed layer would drop the cache that it is given."""
    layers = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for layer in layers:
        layer.gradient_checkpointing = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True  # type: ignore[assignment]


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """For the block, in training mode too, the model's passes draw nothing: policies are compared, not draws.

    trl's own switch reaches dropout modules alone.
    """
    found = [(module, name, value) for module in model.modules() for name, value in randomness_of(module)]
    for module, name, value in found:
        setattr(module, name, type(value)(0))
    try:
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)


@contextlib.contextmanager
def _checkpointing_restored(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Start the block without gradient checkpointing, and put back how the model had it, hooks included."""
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    states = [(module, {n: vars(module)[n] for n in names if n in vars(module)}) for module in model.modules()]
    embeddings = model.get_input_embeddings()
    hooks = set(embeddings._forward_hooks)
    with checkpointing_paused(model):
        try:
            yield
        finally:
            for handle in set(embeddings._forward_hooks) - hooks:  # that inputs require gradients
                del embeddings._forward_hooks[handle]
            for module, state in states:
                for name in names:
                    vars(module).pop(name, None)
                vars(module).update(state)


@contextlib.contextmanager
def quiet_trainers() -> Iterator[None]:
    """Silence the trainers' messages about a set-up we chose on purpose; our own log stays."""
    loggers = [logging.getLogger(name) for name in ("trl", "transformers.trainer", "peft", "accelerate")]
    levels = [(item, item.level) for item in loggers]
    bars = datasets.are_progress_bars_disabled()
    for item in loggers:
        item.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for item, level in levels:
            item.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def warmed_up(kind: str, *, warmup: int, total: int) -> Callable[[int], float]:
    """The share of the peak learning rate at each optimiser step, counted from 0; none of them is 0.

    transformers' schedules warm up from 0, so that the first step of a stage changes nothing; here it gets the share
    1/(warmup + 1). Step `warmup` has the peak in both.

    Args:
        kind: `cosine` or `linear` (both fall to 0 at `total`), or `constant_with_warmup`.
        warmup: Steps before the peak.
        total: Steps in all.
    """

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if kind == "linear":
            return 1 - done
        return 1.0

    return share


class StageMixin:
    """What a stage's trainer has beside trl's: the schedule of `warmed_up`, and when prompts may share a cache."""

    accelerator: Any
    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        trained = [(p, p.data) for p in kwargs["model"].parameters() if p.requires_grad]
        super().__init__(*args, **kwargs)
        for parameter, value in trained:  # trl rounds an adapter on quantised weights to bfloat16
            parameter.data = value

    @property
    def runs_alone(self) -> bool:
        """In one process."""
        return self.accelerator.num_processes == 1

    @property
    def shares_prefix(self) -> bool:
        """Whether what prompts have in common is read once a step, into a cache that gradients flow through.

        A checkpointed layer would drop that cache.
        """
        return self.runs_alone and not self.args.gradient_checkpointing

    @functools.cached_property
    def below(self) -> FrozenLayers | None:
        """The layers below the adapter, for rows that come again; None where a step reads every row whole."""
        return frozen_layers(self.model) if self.shares_prefix else None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the arguments' `lr_scheduler_type` (see `warmed_up`)."""
        if self.lr_scheduler is None:
            share = warmed_up(
                str(getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type)),
                warmup=self.args.get_warmup_steps(num_training_steps),
                total=num_training_steps,
            )
            self.lr_scheduler = LambdaLR(optimizer if optimizer is not None else self.optimizer, share)
            self._created_lr_scheduler = True
        return self.lr_scheduler


@dataclass
class StepLosses:
    """The losses of a stage's optimiser steps.

    Attributes:
        own: Of the stage itself.
        preservation: The preservation term as it entered, its weight included; empty where there is none.
    """

    own: list[float] = field(default_factory=list)
    preservation: list[float] = field(default_factory=list)

    def named(self, stage: str) -> dict[str, list[float]]:
        """As a report has them: under the stage's name, and under `STAGE_preservation` where there is that term."""
        held = {f"{stage}_preservation": self.preservation} if self.preservation else {}
        return {stage: self.own, **held}


# The name under which a trainer logs the preservation term.
PRESERVATION = "preservation"
# The same on the student's own samples.
ON_POLICY_PRESERVATION = "on_policy_preservation"
PRESERVATION_TERMS = (PRESERVATION, ON_POLICY_PRESERVATION)


class WatchCallback(TrainerCallback):
    """Reports progress, stops on a loss that is not finite, and stops early on a low loss of the stage's own."""

    def __init__(
        self, progress: ProgressSink, *, tokens: Any, stop_loss: float | None = None, patience: int = 1
    ) -> None:
        self.progress = progress
        self.tokens = tokens
        self.stop_loss = stop_loss
        self.patience = patience
        self.low = 0
        self.losses = StepLosses()
        self._seen = tokens()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the losses of the step that just ended."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        terms = [float(logs[name]) for name in PRESERVATION_TERMS if name in logs]
        held = [sum(terms)] if terms else []
        for value in (loss, *held):
            if not math.isfinite(value):
                raise EditFailedError(
                    f"The loss became {value} at step {state.global_step}: lower the learning rate. "
                    "The model is restored."
                )
        self.losses.own.append(loss)
        self.losses.preservation += held
        total = self.tokens()
        self.progress.advance(loss=loss, tokens=total - self._seen)
        self._seen = total
        if self.stop_loss is not None:
            self.low = self.low + 1 if loss < self.stop_loss else 0
            if self.low >= self.patience:
                control.should_training_stop = True


@contextlib.contextmanager
def _gradient_hooks_removed(model: nn.Module) -> Iterator[None]:
    """After the block no parameter has the hook by which transformers averages gradients beside sharded weights.

    It would keep the trainer with its optimiser for as long as the adapter lives.
    """
    try:
        yield
    finally:
        for parameter in model.parameters():
            if vars(parameter).pop("_replicated_grad_hook_registered", False):
                parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]


def train(trainer: Any, watch: WatchCallback) -> StepLosses:
    """Train to the end, in one process on one GPU and in silence.

    torch's DataParallel would split our rollout groups; progress goes through the sink, not through print.

    Args:
        trainer: One of trl's, which `watch` is a callback of.

    Returns:
        The losses of its steps.
    """
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size == 1:
        trainer.args._n_gpu = min(trainer.args._n_gpu, 1)
    runs = open_runs(trainer.callback_handler.callbacks, trainer.args.run_name)
    with runs, rows_apart(trainer.model), _gradient_hooks_removed(trainer.model):
        trainer.train()
    watch.progress.finish()
    return watch.losses
