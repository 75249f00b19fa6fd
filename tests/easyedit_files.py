"""Files in EasyEdit's format for a tiny Llama, and its methods with them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from causaledit.hosts.lookup import get_method

HOME = os.environ.get("EASYEDIT_HOME")
needs_easyedit = pytest.mark.skipif(not HOME, reason="EASYEDIT_HOME names no EasyEdit checkout")

ROUTED = "model.layers[1].mlp.down_proj.weight"
LORA = {
    "lora_type": "lora", "layers": [], "num_steps": 8, "lr": 5e-3, "weight_decay": 0, "kl_factor": 0,
    "norm_constraint": False, "target_modules": ["q_proj", "v_proj"], "rank": 4, "lora_alpha": 8, "lora_dropout": 0.0,
    "batch_size": 1,
}  # fmt: skip
FIGURES = {
    "WISE": {
        "mask_ratio": 0.2, "edit_lr": 1.0, "n_iter": 8, "norm_constraint": 1.0, "act_margin": [0.02, 0.1, 0.05],
        "act_ratio": 0.88, "save_freq": 500, "merge_freq": 1000, "merge_alg": "ties", "densities": 0.53, "weights": 1.0,
        "objective_optimization": "only_label", "inner_params": [ROUTED], "retrieve": True, "replay": False,
        "batch_size": 1,
    },
    "GRACE": {
        "edit_lr": 1.0, "n_iter": 8, "eps": 1.0, "dist_fn": "euc", "val_init": "cold", "val_train": "sgd",
        "val_reg": "None", "reg": "early_stop", "replacement": "replace_last", "eps_expand": "coverage", "num_pert": 8,
        "dropout": 0.0, "inner_params": [ROUTED],
    },
    "DPO": LORA,
    "LoRA": LORA,
    "ULTRAEDIT": {
        "model_class": "AutoModelForCausalLM", "tokenizer_class": "AutoTokenizer", "tokenizer_name": "x",
        "inner_params": ["model.layers.1.mlp.down_proj"], "dropout": 0.0, "no_grad_layers": None, "lr": 1e-4,
        "token": "mask", "batch_size": 100, "batch_size_once": 10, "editor_batch_size": 1024, "silent": True,
        "half": False, "results_dir": "results",
    },
    "R-ROME": {
        "stats_dir": "stats", "layers": [1], "fact_token": "subject_last", "v_num_grad_steps": 8, "v_lr": 0.5,
        "v_loss_layer": 1, "v_weight_decay": 1e-3, "clamp_norm_factor": 4, "kl_factor": 0.0625,
        "mom2_adjustment": False, "context_template_length_params": [[4, 5]],
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "layer_module_tmp": "model.layers.{}",
        "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
        "ln_f_module": "model.norm", "lm_head_module": "lm_head", "mom2_dataset": "wikipedia",
        "mom2_n_samples": 10, "mom2_dtype": "float32",
    },
}  # fmt: skip
FIGURES["ROME"] = FIGURES["R-ROME"]
_SPREAD = {
    **{key: value for key, value in FIGURES["R-ROME"].items() if key != "context_template_length_params"},
    "layer_selection": "all", "mom2_adjustment": True, "mom2_update_weight": 0.1, "mom2_dataset": None,
    "mom2_n_samples": 1000, "mom2_max_tokens": 500,
}  # fmt: skip
FIGURES["MEMIT"] = _SPREAD
FIGURES["AlphaEdit"] = {**_SPREAD, "P_loc": "null_space_project.pt", "nullspace_threshold": 0.05, "L2": 0.1}


def file_for(name: str, **changes: Any) -> dict[str, Any]:
    """What a file holds."""
    return {"alg_name": name, "model_name": "x", "device": "cpu", **FIGURES[name], **changes}


def method_with(name: str, **changes: Any) -> tuple[Any, Any]:
    """EasyEdit's method of that name, and its hyper-parameters."""
    method = get_method(name, host="easyedit")
    return method, method.load_hparams().from_dict(file_for(name, **changes))
