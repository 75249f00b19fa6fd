"""Hyper-parameters of LoRA. Defaults are those EasyEdit gives 7–8B models; its key names are accepted too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causaledit.methods.hyperparams import AdapterHyperParams, setting
from causaledit.methods.shared.finetune.hparams import FineTuneHyperParams

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

ALG_NAME = "LoRA"


@dataclass
class LoRAHyperParams(AdapterHyperParams, FineTuneHyperParams):
    """Configuration of one LoRA run."""

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **FineTuneHyperParams.PUBLISHED_KEYS,
        "rank": "lora_rank",
        "target_modules": "lora_target_modules",
    }

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    steps: int = setting(60, "Most optimiser steps.", integer_from=1)
    learning_rate: float = setting(5e-3, "Learning rate of AdamW, constant.", more_than=0)
    lora_rank: int = setting(8, "Rank of the adapter.", integer_from=1)
    lora_alpha: float | None = setting(32.0, "LoRA alpha; None means 2 × rank.", more_than=0)
    lora_dropout: float = setting(0.1, "Dropout of the adapter.", fraction=True)
    lora_target_modules: list[str] = setting(
        ["q_proj", "v_proj"], "Names of the projections that get an adapter, or ['all-linear']."
    )
