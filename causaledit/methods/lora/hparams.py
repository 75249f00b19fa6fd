"""Hyper-parameters of LoRA. Defaults are those EasyEdit gives 7–8B models; its key names are accepted too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import AdapterHyperParams, are_layers, setting
from causaledit.methods.published_keys import Ignored, OnlyAt
from causaledit.methods.shared.finetune.hparams import FineTuneHyperParams
from causaledit.methods.shared.hparams import PreservationHyperParams

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

ALG_NAME = "LoRA"


@dataclass
class LoRAHyperParams(AdapterHyperParams, FineTuneHyperParams, PreservationHyperParams):
    """Configuration of one LoRA run."""

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **FineTuneHyperParams.PUBLISHED_KEYS,
        "rank": "lora_rank",
        "target_modules": "lora_target_modules",
        "norm_constraint": OnlyAt((False, None), "an adapter has no bound; set it to false, or use FT"),
        "sh_lr": Ignored("the learning rate is constant; only EasyEdit's multimodal LoRA lets it decay", warn=True),
    }

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    lora_type: str = setting(
        "lora",
        "`lora`, or `adalora`: peft's AdaLoRA, which moves rank to the modules that need it. `lora_rank` is then the "
        "mean rank at the end; the beginning has half as much again.",
        choices=("lora", "adalora"),
    )
    layers: list[int] | None = setting(
        None, "Numbers of the layers that get an adapter, as EasyEdit lists them; None or [] means all."
    )
    steps: int = setting(60, "Maximum number of optimiser steps.", integer_from=1)
    learning_rate: float = setting(5e-3, "Learning rate of AdamW, constant.", more_than=0)
    lora_rank: int = setting(8, "Rank of the adapter.", integer_from=1)
    lora_alpha: float | None = setting(32.0, "LoRA alpha; None means 2 × rank.", more_than=0)
    lora_dropout: float = setting(0.1, "Dropout of the adapter.", fraction=True)
    lora_target_modules: list[str] = setting(
        ["q_proj", "v_proj"], "Names of the projections that get an adapter, or ['all-linear']."
    )

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        layers = None if self.layers == [] else self.layers
        if layers is not None and not are_layers(layers):
            raise HparamsError(f"`layers` must be a list of different layer numbers (none: all), got {layers!r}.")
        if layers is not None and self.lora_layers is not None:
            raise HparamsError(f"`layers` ({layers}) and `lora_layers` ({self.lora_layers}) mean the same: keep one.")
        self.layers = layers
        if self.lora_type == "adalora" and self.steps < 2:
            raise HparamsError(f"`steps` is {self.steps}, but `lora_type: adalora` moves rank between steps: give 2.")
        if self.lora_type == "adalora" and self.lora_init != "random":
            raise HparamsError(
                f"`lora_init: {self.lora_init}` points a plain adapter's A, and `lora_type: adalora` has another form: "
                "leave out one."
            )
        if self.lora_type == "adalora" and self.orthogonal_edits:
            raise HparamsError(
                "`orthogonal_edits` holds plain adapters apart, and `lora_type: adalora` moves rank: leave out one."
            )

    def edited_weights(self, model: Any) -> list[str] | None:
        """Those that the adapter is put on."""
        from causaledit.methods.lora.adapter import adapter_config
        from causaledit.models.adapters import adapted_weights

        return adapted_weights(model, self, adapter_config(model, self))
