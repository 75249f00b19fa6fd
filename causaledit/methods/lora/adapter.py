"""The adapter that LoRA trains: low-rank matrices, or AdaLoRA's, whose rank moves to where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft import AdaLoraConfig, LoraConfig

from causaledit.errors import ModelError
from causaledit.models.adapters import lora_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from causaledit.methods.lora.hparams import LoRAHyperParams


def adapter_config(model: PreTrainedModel, hparams: LoRAHyperParams) -> LoraConfig:
    """The adapter's configuration, checked against the model.

    AdaLoRA begins with half as much rank again as `lora_rank`, peft's and the paper's proportion, keeps it for the
    first tenth of the steps, removes it from the modules that need it least until four fifths of them, and trains the
    rest with what is left (arXiv 2303.10512, section 3.3).

    Raises:
        ModelError: A target module or layer does not exist in the model.
    """
    config = lora_config(model, hparams)
    if hparams.layers is not None:
        depth = model.config.get_text_config().num_hidden_layers
        if wrong := [number for number in hparams.layers if number >= depth]:
            raise ModelError(f"`layers` names layer {wrong[0]}, but the model has layers 0 to {depth - 1}.")
        if isinstance(config.target_modules, str):
            raise ModelError(f"`layers` is {hparams.layers}: name the projections in `lora_target_modules` too.")
        config.layers_to_transform = list(hparams.layers)
    if hparams.lora_type == "lora":
        return config
    return AdaLoraConfig(
        target_r=hparams.lora_rank,
        init_r=hparams.lora_rank + max(hparams.lora_rank // 2, 1),
        total_step=hparams.steps,
        tinit=hparams.steps // 10,
        tfinal=hparams.steps // 5,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        layers_to_transform=config.layers_to_transform,
        task_type="CAUSAL_LM",
    )


def orthogonality(adapted: PeftModel) -> torch.Tensor:
    """Mean over AdaLoRA's singular vectors of ‖PᵀP − I‖ and ‖QQᵀ − I‖ in Frobenius norm (arXiv 2303.10512, eq. 4).

    The norms are not squared, as in the authors' code and in peft.
    """
    norms = []
    for name, matrix in adapted.named_parameters():
        if matrix.requires_grad and (".lora_A." in name or ".lora_B." in name):
            product = matrix @ matrix.T if ".lora_A." in name else matrix.T @ matrix
            norms.append((product - torch.eye(len(product), dtype=product.dtype, device=product.device)).norm())
    device = norms[0].device
    return torch.stack([norm.to(device) for norm in norms]).mean()


def adaptive_training(adapted: PeftModel) -> dict[str, Any]:
    """What AdaLoRA adds to `descend`: its penalty, and the moving of rank behind each step; nothing for plain LoRA."""
    config = adapted.peft_config["default"]
    if not isinstance(config, AdaLoraConfig):
        return {}
    tuner: Any = adapted.base_model
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]

    def allocate(step: int) -> None:
        for parameter in trained:  # peft reads every gradient; a module that was not used (an expert) has none
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        tuner.update_and_allocate(step)

    penalties = {"orthogonality": lambda: config.orth_reg_weight * orthogonality(adapted)}
    return {"penalties": penalties, "adjust": allocate}
