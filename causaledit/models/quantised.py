"""Base models whose matrices bitsandbytes holds in 8 or 4 bits: loading them, and where their weights came from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from causaledit.errors import ModelError
from causaledit.support.extras import require_extra

QUANTIZATIONS = ("none", "8bit", "4bit")


def is_quantised(model: Any) -> bool:
    """Whether a model's matrices are held in fewer bits, so that nothing can be added to them."""
    return bool(getattr(model, "is_quantized", False))


def check_quantization(name: Any, quantization: str) -> None:
    """Refuse what bitsandbytes cannot do, before anything is read.

    Args:
        name: Of the model, as `load_model` takes it.
        quantization: The setting.

    Raises:
        ModelError: There is no such setting, or nothing on disk to quantise.
        MissingExtraError: bitsandbytes is not installed.
    """
    if quantization not in QUANTIZATIONS:
        raise ModelError(f"`quantization` must be one of {', '.join(QUANTIZATIONS)}, got {quantization!r}.")
    if quantization == "none":
        return
    require_extra("gpu", f"`quantization: {quantization}`")
    if not isinstance(name, str | Path) or str(name).endswith(".gguf"):
        raise ModelError(f"`quantization: {quantization}` needs a model's folder or hub name: set it to none.")


def loading_arguments(quantization: str, dtype: Any) -> dict[str, Any]:
    """transformers' arguments for a setting.

    Args:
        quantization: `none`, `8bit`, or `4bit`, which is NF4 (QLoRA, arXiv 2305.14314, section 3).
        dtype: Of the other weights and of what is computed.
    """
    if quantization == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    return {"quantization_config": four}


def settle(model: Any) -> None:
    """Let quantised weights stay as they were loaded, and bitsandbytes be quiet about its arithmetic.

    On a CPU with bfloat16 arithmetic it lays 4-bit weights out anew in the first pass without gradients, for speed, and
    rounds their scales to bfloat16: the model would be another one after it was first asked something.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_not_of_casts)


def _not_of_casts(record: logging.LogRecord) -> bool:
    """Whether a message is another one than that which 8-bit layers give of every matrix at every pass in float32."""
    return "inputs will be cast" not in str(record.msg)


def originals_of(model: Any) -> str:
    """Where the weights are that a quantised model was made from.

    Raises:
        ModelError: It does not say, or these are quantised themselves.
    """
    from causaledit.models.loading import load_config

    name = str(getattr(model.config, "_name_or_path", "") or "")
    if not name:
        raise ModelError(
            "An adapter on quantised weights is merged into those they were made from, and this model has no name: set "
            "`merge_adapter: false` (`--adapter-only`), or give the model's folder or hub name."
        )
    if getattr(load_config(name), "quantization_config", None) is not None:
        raise ModelError(
            f"{name!r} holds quantised weights alone, which no adapter can be merged into: set `merge_adapter: false` "
            "(`--adapter-only`)."
        )
    return name
