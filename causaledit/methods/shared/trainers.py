"""What methods ask of trl's trainers: arguments, silence, callbacks."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import tempfile
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback

from causaledit.errors import EditFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from causaledit.support.progress import ProgressSink


class TrainerSettings(Protocol):
    """What a method's hyper-parameters say of its optimiser."""

    seed: int
    optimizer: str
    adam_epsilon: float


def optimizer_name(hparams: TrainerSettings, device: torch.device) -> str:
    """`auto`: 8-bit paged AdamW where bitsandbytes and a GPU are, plain AdamW otherwise."""
    if hparams.optimizer != "auto":
        return hparams.optimizer
    if device.type == "cuda" and importlib.util.find_spec("bitsandbytes"):
        return "paged_adamw_8bit"
    return "adamw_torch"


@contextlib.contextmanager
def trainer_arguments(model: PreTrainedModel, hparams: TrainerSettings) -> Iterator[dict[str, Any]]:
    """Arguments common to both trainers; their output folder lasts as long as the block."""
    device = model.device
    with tempfile.TemporaryDirectory(prefix="causaledit-") as folder:
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
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": device.type == "cpu",
            "bf16": device.type == "cuda" and model.dtype == torch.bfloat16,
            "fp16": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
            "remove_unused_columns": False,
        }


@contextlib.contextmanager
def quiet_trainers() -> Iterator[None]:
    """Silence what trainers say about a set-up we chose on purpose; our own log stays."""
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


def prepared(trainer: Any) -> Any:
    """Keep a trainer in one process on one GPU, and silent.

    torch's DataParallel would split our rollout groups; progress goes through the sink, not through print.
    """
    trainer.remove_callback(PrinterCallback)
    if trainer.args.world_size == 1:
        trainer.args._n_gpu = min(trainer.args._n_gpu, 1)
    return trainer


class WatchCallback(TrainerCallback):
    """Reports progress, stops on a loss that is not finite, and stops early on a low loss."""

    def __init__(
        self, progress: ProgressSink, *, tokens: Any, stop_loss: float | None = None, patience: int = 1
    ) -> None:
        self.progress = progress
        self.tokens = tokens
        self.stop_loss = stop_loss
        self.patience = patience
        self.low = 0
        self.losses: list[float] = []
        self._seen = tokens()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the loss of the step that just ended."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise EditFailedError(
                f"The loss became {loss} at step {state.global_step}: lower the learning rate. The model is restored."
            )
        self.losses.append(loss)
        total = self.tokens()
        self.progress.advance(loss=loss, tokens=total - self._seen)
        self._seen = total
        if self.stop_loss is not None:
            self.low = self.low + 1 if loss < self.stop_loss else 0
            if self.low >= self.patience:
                control.should_training_stop = True
